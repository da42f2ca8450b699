"""PEFT adapters, such as LoRA's, merged into a model's weights: the engine then runs it like any other."""

import importlib
import logging
import warnings
from pathlib import Path
from typing import Any

from tasks.errors import ModelError
from worker.backends.failures import explain

logger = logging.getLogger(__name__)

NOT_MERGED = "adapter {} cannot be merged into this model ({}); use one that was made for it and that can be merged."


def merge_adapter(model: Any, folder: Path) -> Any:
    """``model`` with the adapter in ``folder`` merged into its weights, in place. Raises `ModelError`."""
    # Workers without adapters do not pay for peft: 0.3 s and 15 MB.
    peft = importlib.import_module("peft")
    try:
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            merged = peft.PeftModel.from_pretrained(model, str(folder), local_files_only=True).merge_and_unload()
    except Exception as error:
        raise ModelError(NOT_MERGED.format(folder, explain(error))) from error
    for warning in noted:
        said = str(warning.message)
        logger.info("adapter %s: %s", folder, said)
        if "missing adapter keys" in said:
            raise ModelError(NOT_MERGED.format(folder, "its file lacks weights"))
    return merged.eval()
