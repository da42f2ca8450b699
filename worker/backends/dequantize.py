"""Turn a GGUF file into a folder of safetensors: ``python -m worker.backends.dequantize FILE FOLDER DTYPE``."""

import ctypes
import logging
import signal
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tasks.errors import ModelError
from tasks.host.supervisor import PR_SET_PDEATHSIG
from worker.backends.failures import explain, first_line
from worker.backends.weights import check_keys

NOT_SUPPORTED = "not supported yet"


def main() -> int:
    path, folder, dtype = Path(sys.argv[1]), Path(sys.argv[2]), getattr(torch, sys.argv[3])
    logging.basicConfig(level=logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        dequantize(path, folder, dtype)
    except Exception as error:
        sys.stdout.write(f"{explain(error)}\n")
        return 1
    return 0


def dequantize(path: Path, folder: Path, dtype: torch.dtype) -> None:
    """Write weights, config, tokenizer and chat template of the file ``path`` to ``folder``. Raises `ModelError`."""
    place = {"gguf_file": path.name, "local_files_only": True}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            path.parent,
            **place,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    except ValueError as error:
        if NOT_SUPPORTED not in str(error):
            raise
        raise ModelError(
            f"{first_line(error).rstrip('.')} by transformers {transformers.__version__}; run it by llama.cpp's server "
            "(backend = 'openai' with serve), or use the model's safetensors."
        ) from error
    check_keys(info)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **place)
    if not tokenizer.get_vocab():
        raise ModelError("it holds no tokenizer; convert the model anew with its tokenizer's files at hand.")
    # What is saved has no blocks any more, and transformers saves no model that says it has.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
