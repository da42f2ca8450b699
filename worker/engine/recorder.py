"""A model's forward pass as one flat function: recorded once, without the layers of modules around its operators.

With small models and few rows most of a step is spent between operators, in Python. Recording follows the model's own
code once, with sizes left open; nothing here knows a model.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from worker.engine.codegen import METHODS, CodeGenerator
from worker.engine.fusions import fuse
from worker.engine.native import Native
from worker.engine.tracer import Program, Recorded, shape, trace

_aten = torch.ops.aten
# What only looks at a tensor's memory in another way, or at none.
VIEWS = frozenset[Any](
    (
        *(_aten.view.default, _aten.transpose.int, _aten.split.Tensor, _aten.unsqueeze.default, _aten.sym_size.int),
        operator.getitem,
    )
)
# What computes a row from the same row of its inputs, and from what is not in rows at all.
BY_ROW = frozenset[Any](
    (
        *(_aten.add.Tensor, _aten.mul.Tensor, _aten.pow.Tensor_Scalar, _aten.rsqrt.default, _aten.mean.dim),
        *(_aten.native_layer_norm.default, _aten._to_copy.default),
        *(_aten.silu.default, _aten.gelu.default, _aten.relu.default, _aten.tanh.default),
        torch.ops.touchstone.linear.default,
        torch.ops.mkldnn._linear_pointwise.default,
    )
)


@dataclass(frozen=True)
class Recording:
    """A model as a flat function. ``only_kernels``: all that it computes is computed by the engine's own."""

    run: Program
    only_kernels: bool


def record(
    forward: Program,
    device: torch.device,
    computed_by: Mapping[Any, Callable[..., Any]],
    native: Native | None,
    max_context: int,
) -> Recording:
    """``forward`` of token ids ``[1, tokens]``, positions ``[1, tokens]`` and kept places ``[kept]``, flattened.

    In the place of an operator in ``computed_by`` its function is called, and ``native`` does what it can do at once,
    for positions below ``max_context``. Raises whatever recording raises.
    """
    recorded = trace(forward, device)
    for copied in recorded.graph.find_nodes(op="call_function", target=_aten.clone.default):
        # Nothing recorded is changed in place, so a copy is as good as its source if that can be viewed like it.
        if _can_be_viewed_like(copied.args[0].meta["val"], copied):
            copied.replace_all_uses_with(copied.args[0])
    for view in recorded.graph.find_nodes(op="call_function", target=_aten.view.default):
        if shape(view) == shape(view.args[0]):
            view.replace_all_uses_with(view.args[0])
    recorded.graph.eliminate_dead_code()
    _keep_early(recorded)
    kernels = {*computed_by, *VIEWS}
    if native is not None:
        kernels |= fuse(recorded, native, max_context)
    only_kernels = native is not None and all(
        node.op != "call_function" or node.target in kernels for node in recorded.graph.nodes
    )
    return Recording(CodeGenerator(recorded, {**METHODS, **computed_by}).function(), only_kernels)


def _can_be_viewed_like(source: Any, copied: fx.Node) -> bool:
    """Whether ``source``, whose strides may be others, allows each view of ``copied``, and each view of that."""
    for user in copied.users:
        view: Any = user.target
        if view not in VIEWS:
            continue
        args = [source if each is copied else each for each in user.args]
        try:
            viewed = source.view(user.meta["val"].shape) if view is _aten.view.default else view(*args, **user.kwargs)
        except (RuntimeError, TypeError):
            return False
        if not _can_be_viewed_like(viewed, user):
            return False
    return True


def _keep_early(recorded: Recorded) -> None:
    """Choose the rows that are kept as early as no other row is needed: after the last attention, not at the end."""
    chosen = list(recorded.graph.find_nodes(op="call_function", target=_aten.index.Tensor))
    if len(chosen) != 1 or len(shape(chosen[0].args[0])) != 3 or chosen[0].args[1][:-1] != [None]:
        return
    (choice,) = chosen
    row = shape(choice.args[0])[:2]
    late = {choice}
    for node in reversed(recorded.graph.nodes):
        if _is_by_row(node, row) and node.users and late.issuperset(node.users):
            late.add(node)
    early: dict[fx.Node, fx.Node] = {}
    for node in [each for each in recorded.graph.nodes if each in late and each is not choice]:
        for used in node.all_input_nodes:
            if used in late or shape(used)[:2] != row:
                continue
            if used not in early:
                with recorded.graph.inserting_before(node):
                    early[used] = recorded.graph.call_function(_aten.index.Tensor, (used, choice.args[1]))
                early[used].meta = used.meta
            node.replace_input_with(used, early[used])
    if early:
        choice.replace_all_uses_with(choice.args[0])
        recorded.graph.erase_node(choice)


def _is_by_row(node: Any, row: list[str]) -> bool:
    """Whether a node computes each row of ``[1, rows, …]`` from the same row of what it is given."""
    if node.target is operator.getitem:
        return _is_by_row(node.args[0], row)
    if node.target is _aten.mean.dim and node.args[1] != [-1]:
        return False
    return node.target in BY_ROW and shape(node)[:2] == row
