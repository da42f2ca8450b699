"""Models as transformers makes them from a folder or a hub."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM


def open_weights(source: str, **options: Any) -> Any:
    """`AutoModelForCausalLM.from_pretrained`, which it raises the errors of; never runs code that comes with a model.

    What is to be computed for tensors without storage it leaves out, as that takes time and 35 MB of torch's code.
    """
    with _Spared():
        return AutoModelForCausalLM.from_pretrained(source, trust_remote_code=False, **options)


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
