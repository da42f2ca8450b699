"""Models as transformers makes them from a folder or a hub."""

import logging
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

logger = logging.getLogger(__name__)


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
