"""Linear layers for the CPU whose weight is laid out once for the matrix product, not anew at every call."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import activations
from transformers.pytorch_utils import Conv1D

Post = tuple[str, str]  # oneDNN's name of what follows the product, and the variant of it
PLAIN: Post = ("none", "")
ACTIVATIONS: dict[type[nn.Module], Post] = {
    nn.ReLU: ("relu", ""),
    nn.SiLU: ("swish", ""),
    nn.GELU: ("gelu", "none"),
    activations.GELUActivation: ("gelu", "none"),
    activations.NewGELUActivation: ("gelu", "tanh"),
    activations.FastGELUActivation: ("gelu", "tanh"),
    activations.GELUTanh: ("gelu", "tanh"),
    activations.SiLUActivation: ("swish", ""),
}
TRIAL_ROWS = 3
TYPICAL_ROWS = 64  # the layout is chosen for so many; it is as good for fewer
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


class PackedLinear(nn.Module):
    """``y = post(x W' + b)`` with a weight that only oneDNN can read; replaces a linear layer and its weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        """``weight`` ``[out, in]``, packed or plain; ``bias`` ``[out]``."""
        super().__init__()
        self.packed = weight
        self.bias = bias
        self.post = PLAIN

    def forward(self, x: Tensor) -> Tensor:
        name, variant = self.post
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, name, [], variant)


def pack(model: nn.Module) -> int:
    """Replace the model's linear layers in place; returns how many.

    None where the CPU or this build of torch cannot, or where the outcome would differ from the plain layer's. A
    weight that is shared with another module, as an output layer's with the embedding, stays where it is and is
    only multiplied by oneDNN: it does not exist twice.
    """
    if not _is_possible(model):
        return 0
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    count = 0
    with torch.no_grad():
        for parent, name, layer in list(_linear_layers(model)):
            packed = _packed(layer, shared=owners[id(layer.weight)] > 1)
            if packed is not None:
                setattr(parent, name, packed)
                count += 1
        for module in list(model.modules()):
            _fuse_activation(module)
    return count


def _is_possible(model: nn.Module) -> bool:
    parameter = next(model.parameters())
    if parameter.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")):
        return False
    bf16 = parameter.dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return parameter.dtype is torch.float32 or bool(bf16)


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    for parent in model.modules():
        for name, layer in parent.named_children():
            if type(layer) in (nn.Linear, Conv1D):
                yield parent, name, layer


def _packed(layer: Any, *, shared: bool) -> PackedLinear | None:
    """None where it would not compute the same."""
    weight = layer.weight.detach()
    weight = weight.t().contiguous() if isinstance(layer, Conv1D) else weight
    bias = None if layer.bias is None else layer.bias.detach()
    try:
        made = PackedLinear(weight if shared else torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS), bias)
        return made if _agree(layer, made, weight.shape[1], weight.dtype) else None
    except RuntimeError:
        return None


def _fuse_activation(module: nn.Module) -> None:
    """Let a packed child of ``module`` do the activation too, if the module computes the same with it.

    Which child comes before the activation is not written anywhere, so each is tried.
    """
    found = [(name, child) for name, child in module.named_children() if type(child) in ACTIVATIONS]
    layers = [child for child in module.children() if isinstance(child, PackedLinear)]
    if len(found) != 1 or len(layers) < 2:
        return
    name, activation = found[0]
    plain = copy.copy(module)
    plain._modules = {key: copy.copy(child) for key, child in module._modules.items()}
    setattr(module, name, nn.Identity())
    for layer in layers:
        layer.post = ACTIVATIONS[type(activation)]
        if any(_compute_the_same(plain, module, other.packed) for other in layers):
            return
        layer.post = PLAIN
    setattr(module, name, activation)


def _compute_the_same(plain: nn.Module, module: nn.Module, weight: Tensor) -> bool:
    """Compares on inputs as wide as ``weight``'s; a module that takes no such input does not compute the same."""
    try:
        return _agree(plain, module, weight.shape[1], weight.dtype)
    except (RuntimeError, TypeError, ValueError):
        return False


def _agree(one: nn.Module, other: nn.Module, width: int, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    trial = torch.randn(1, TRIAL_ROWS, width, generator=generator).to(dtype)
    expected, actual = one(trial).float(), other(trial).float()
    return bool((expected - actual).norm() <= TOLERANCE[dtype] * expected.norm())
