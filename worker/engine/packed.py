"""Linear layers for the CPU whose weight is laid out once for the matrix product, not anew at every call."""

import copy
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import activations
from transformers.pytorch_utils import Conv1D

from worker.engine.native import POSTS, Native
from worker.engine.native import embed as native_embed
from worker.engine.native import linear as native_linear

logger = logging.getLogger(__name__)

NONE = POSTS[0]
ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    activations.GELUActivation: "gelu",
    activations.NewGELUActivation: "gelu_tanh",
    activations.FastGELUActivation: "gelu_tanh",
    activations.GELUTanh: "gelu_tanh",
    activations.SiLUActivation: "silu",
}
ONEDNN_POSTS = {NONE: ("none", ""), "relu": ("relu", ""), "silu": ("swish", "")}
ONEDNN_POSTS |= {"gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh")}
TRIAL_ROWS = 3
TYPICAL_ROWS = 64  # oneDNN chooses its layout for so many; it is as good for fewer
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


class PackedLinear(nn.Module):
    """``y = post(x W' + b)`` with a weight that only the kernel can read; replaces a linear layer and its weight."""

    def __init__(self, packed: Tensor, bias: Tensor | None, shape: torch.Size):
        """``packed`` holds a weight of ``shape`` ``[out, in]``, ``bias`` is ``[out]``; ``post`` one of ``POSTS``."""
        super().__init__()
        self.packed, self.bias = packed, bias
        self.outs, self.inputs = shape
        self.post = NONE


class OneDnnLinear(PackedLinear):
    """The kernel that torch brings; the weight may also be left as it is."""

    def forward(self, x: Tensor) -> Tensor:
        name, variant = ONEDNN_POSTS[self.post]
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, name, [], variant)


class NativeLinear(PackedLinear):
    """The engine's own kernel, for bfloat16 where the processor multiplies it."""

    def forward(self, x: Tensor) -> Tensor:
        return native_linear(x, self.packed, self.bias, self.outs, POSTS.index(self.post))


class NativeEmbedding(nn.Module):
    """Looks tokens up in the weight of the output layer."""

    def __init__(self, layer: NativeLinear):
        super().__init__()
        self.packed, self.num_embeddings, self.embedding_dim = layer.packed, layer.outs, layer.inputs

    def forward(self, ids: Tensor) -> Tensor:
        return native_embed(ids, self.packed, self.embedding_dim)


def pack(model: nn.Module, native: Native | None) -> int:
    """Replace the model's linear layers in place; returns how many.

    None where the CPU or this build of torch cannot, or where the outcome would differ from the plain layer's. No
    weight exists twice: an embedding that shares the output layer's weight reads the packed one, too, or else that
    weight stays where it is and is only multiplied by oneDNN.
    """
    if not _is_possible(model):
        return 0
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for name, module in parent.named_children():
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append((parent, name))
    count = 0
    with torch.no_grad():
        for parent, name in list(_linear_layers(model)):
            # Fetched one by one, so that a plain weight is gone before the next is packed.
            layer = getattr(parent, name)
            others = [place for place in owners[id(layer.weight)] if place != (parent, name)]
            packed = _packed(layer, native, [getattr(*place) for place in others])
            if packed is None:
                continue
            setattr(parent, name, packed)
            count += 1
            if isinstance(packed, NativeLinear):
                for place in others:
                    setattr(*place, NativeEmbedding(packed))
        for module in list(model.modules()):
            _fuse_activation(module)
        _leave_file(model)
    return count


def _leave_file(model: nn.Module) -> None:
    """Copy what was not packed: as long as one tensor lies in the mapped file of weights, all of it stays in memory."""
    copies: dict[int, Tensor] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        place, copied = tensor.data_ptr(), tensor.data.clone()
        copies[place] = tensor.data = copied
    for layer in model.modules():
        if isinstance(layer, OneDnnLinear) and not layer.packed.is_mkldnn:
            place = layer.packed.data_ptr()
            if place not in copies:  # shared by linear layers alone
                copies[place] = layer.packed.clone()
            layer.packed = copies[place]


def multiplies_by_row(model: nn.Module) -> bool:
    """Whether no row of a product depends on how many rows there are: true of the engine's own kernel alone."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | Conv1D | PackedLinear)]
    return all(isinstance(layer, NativeLinear) for layer in layers)


def _is_possible(model: nn.Module) -> bool:
    parameter = next(model.parameters())
    if parameter.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")):
        return False
    bf16 = parameter.dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return parameter.dtype is torch.float32 or bool(bf16)


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for parent in model.modules():
        for name, layer in parent.named_children():
            if type(layer) in (nn.Linear, Conv1D):
                yield parent, name


def _packed(layer: Any, native: Native | None, sharers: Sequence[nn.Module]) -> PackedLinear | None:
    """None where it would not compute the same. ``sharers`` are the other modules that use the weight."""
    weight = layer.weight.detach()
    weight = weight.t().contiguous() if isinstance(layer, Conv1D) else weight
    bias = None if layer.bias is None else layer.bias.detach().clone()
    multiplies = native is not None and native.multiplies and weight.dtype is torch.bfloat16
    made: PackedLinear
    try:
        if multiplies and weight.shape[1] % 2 == 0 and all(type(module) is nn.Embedding for module in sharers):
            assert native is not None
            made = NativeLinear(native.pack(weight), bias, weight.shape)
        else:
            packed = weight if sharers else torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)
            made = OneDnnLinear(packed, bias, weight.shape)
        return made if _agree(layer, made, made.inputs, weight.dtype) else None
    except RuntimeError as error:
        logger.warning("a layer of shape %s is not packed: %s", tuple(weight.shape), error)
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
        if any(_compute_the_same(plain, module, other) for other in layers):
            return
        layer.post = NONE
    setattr(module, name, activation)


def _compute_the_same(plain: nn.Module, module: nn.Module, layer: PackedLinear) -> bool:
    """Compares on inputs as wide as ``layer``'s; a module that takes no such input does not compute the same."""
    try:
        return _agree(plain, module, layer.inputs, layer.packed.dtype)
    except (RuntimeError, TypeError, ValueError):
        return False


def _agree(one: nn.Module, other: nn.Module, width: int, dtype: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    trial = torch.randn(1, TRIAL_ROWS, width, generator=generator).to(dtype)
    expected, actual = one(trial).float(), other(trial).float()
    return bool((expected - actual).norm() <= TOLERANCE[dtype] * expected.norm())
