"""Models as transformers makes them from a folder or a hub."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tasks.errors import ModelError
from tasks.registry.inspection import read_config

logger = logging.getLogger(__name__)

OWN_CODE = (
    "it comes with code of its own ({}), which is never run here (trust_remote_code stays off); choose a model whose "
    "architecture transformers {} knows, or run it by a server and give that as backend = 'openai'."
)


def load_weights(folder: Path, dtype: torch.dtype) -> Any:
    """The causal language model in a folder, on the CPU and in ``dtype``.

    Raises `ModelError` for a model that transformers does not know or whose file does not hold all its weights, and
    whatever transformers raises.
    """
    check_known(read_config(folder))
    model, info = open_weights(
        str(folder), dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
    )
    check_keys(info)
    if unexpected := sorted(info["unexpected_keys"]):
        logger.info("%d tensors of the file are not the model's, such as %s", len(unexpected), unexpected[0])
    return model.eval()


def check_known(config: Mapping[str, Any]) -> None:
    """Raise `ModelError` for a config of a model that transformers has no code for."""
    kind, own = str(config.get("model_type") or ""), config.get("auto_map")
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return
    if own:
        raise ModelError(OWN_CODE.format(", ".join(sorted(map(str, own))), transformers.__version__))
    if kind in CONFIG_MAPPING_NAMES:
        raise ModelError(f"a model of type {kind!r} does not continue a text; choose a causal language model.")
    if not kind:
        raise ModelError("its config.json names no model_type; copy the config of the model that it was made from.")
    raise ModelError(
        f"its type {kind!r} is unknown to transformers {transformers.__version__}; correct model_type in config.json, "
        "or run it by a server that knows it and give that as backend = 'openai'."
    )


def check_keys(info: Mapping[str, Any]) -> None:
    """Raise `ModelError` where a file lacks weights, or has some of another shape: transformers would make them up.

    ``info`` is what `from_pretrained` tells of loading. Weights that are tied to others lack nothing.
    """
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"its file lacks {_count(missing, 'weight')} that the model has: {_some(missing)}; config.json and weights "
            "do not belong together, or the file is not whole: download or convert it again."
        )
    if mismatched := sorted(info["mismatched_keys"]):
        name, found, wanted = mismatched[0]
        verb = "has" if len(mismatched) == 1 else "have"
        raise ModelError(
            f"{_count(mismatched, 'weight')} of its file {verb} another shape than config.json says, such as {name}: "
            f"{list(found)} instead of {list(wanted)}; config.json and weights do not belong together: download both "
            "again."
        )
    if errors := info.get("error_msgs"):
        raise ModelError(f"its weights cannot be taken over: {str(errors[0]).splitlines()[0]}")


def check_numbers(model: Any) -> None:
    """Raise `ModelError` for a model that computes NaN, which damaged weights or too narrow a dtype lead to."""
    try:
        with torch.inference_mode():
            tokens = torch.zeros(1, 1, dtype=torch.long, device=model.device)
            logits = model(input_ids=tokens, use_cache=False).logits
    except Exception as error:
        # What a model cannot do by itself is found out, and said, where an engine is chosen for it.
        logger.info("the model was not tried before an engine was chosen: %s", error)
        return
    if logits.isnan().any():
        name = str(model.dtype).removeprefix("torch.")
        raise ModelError(
            f"it computes no usable numbers as {name} (NaN); set dtype = 'float32', or download or copy its weights "
            "again."
        )


def _count(names: list[Any], word: str) -> str:
    return f"{len(names)} {word}{'' if len(names) == 1 else 's'}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def open_weights(source: str, **options: Any) -> Any:
    """`AutoModelForCausalLM.from_pretrained`, which it raises the errors of; never runs code that comes with a model.

    What is to be computed for tensors without storage it leaves out, as that takes time and 35 MB of torch's code.
    """
    options |= {"trust_remote_code": False}
    try:
        with _Spared():
            return AutoModelForCausalLM.from_pretrained(source, **options)
    except RuntimeError as error:
        # Such as a model that joins counted positions to tensors without storage.
        logger.info("%s is made with nothing left out: %s", source, error)
        return AutoModelForCausalLM.from_pretrained(source, **options)


class _Spared(TorchFunctionMode):
    """Leaves tensors without storage alone where they are to be filled, and counts positions with storage."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        if func is torch.arange and torch.device(kwargs.get("device") or "cpu").type == "meta":
            return func(*args, **kwargs | {"device": "cpu"})
        return func(*args, **kwargs)
