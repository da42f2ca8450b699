"""What of a recorded model the engine's kernels do at once: the same numbers from fewer and larger steps.

Patterns are tuples of an operator and what it is called with; a text in one stands for whatever is found there. Sums
and products are recognised either way round.
"""

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from worker.engine.native import Native
from worker.engine.tracer import Recorded, shape

_aten = torch.ops.aten
_add, _mul, _narrow = _aten.add.Tensor, _aten.mul.Tensor, _aten._to_copy.default
_LAST = (1 << 63) - 1
_WIDE = (_narrow, "x")
_MEAN_SQUARE = (_aten.mean.dim, (_aten.pow.Tensor_Scalar, _WIDE, 2), [-1], True)
RMS_NORM = (_mul, "weight", (_narrow, (_mul, _WIDE, (_aten.rsqrt.default, (_add, _MEAN_SQUARE, "epsilon")))))
# A model that computes in float32 has nothing to widen.
_MEAN_SQUARE_32 = (_aten.mean.dim, (_aten.pow.Tensor_Scalar, "x", 2), [-1], True)
RMS_NORM_32 = (_mul, "weight", (_mul, "x", (_aten.rsqrt.default, (_add, _MEAN_SQUARE_32, "epsilon"))))
LAYER_NORM = (_aten.native_layer_norm.default, "x", ["width"], "weight", "bias", "epsilon")
_CROSSED = [(_aten.neg.default, (_aten.slice.Tensor, "x", 3, "half", _LAST)), (_aten.slice.Tensor, "x", 3, 0, "half")]
ROTATION = (
    _add,
    (_mul, "x", (_aten.unsqueeze.default, "cosine", 1)),
    (_mul, (_aten.cat.default, _CROSSED, -1), (_aten.unsqueeze.default, "sine", 1)),
)

Found = dict[str, Any]


def fuse(recorded: Recorded, native: Native, max_context: int) -> set[Any]:
    """Let ``native`` compute what it can; returns the functions of its that the graph may now call.

    What depends on nothing but a position is computed beforehand, for all below ``max_context``.
    """
    _use_norms(recorded, native)
    recorded.graph.eliminate_dead_code()  # so that a norm uses a sum once
    _join_sums(recorded, native)
    _use_rotations(recorded, native)
    _use_products(recorded, native)
    _tabulate_positions(recorded, native, max_context)
    _look_rows_up(recorded, native)
    recorded.graph.eliminate_dead_code()
    return {native.norm, native.add_norm, native.rotate, native.product, native.lookup}


def match(pattern: Any, value: Any, found: Found) -> Found | None:
    """``found`` and what the names in ``pattern`` stand for, if ``value`` is like it; a name is the same everywhere."""
    if isinstance(pattern, str):
        return found | {pattern: value} if found.get(pattern, value) == value else None
    if isinstance(pattern, tuple):
        if not isinstance(value, fx.Node) or value.target is not pattern[0]:
            return None
        turned = [value.args[::-1]] if value.target in (_add, _mul) else []
        outcomes = (match(list(pattern[1:]), list(args), found) for args in (value.args, *turned))
        return next((outcome for outcome in outcomes if outcome is not None), None)
    if isinstance(pattern, list):
        if not isinstance(value, Sequence) or len(value) != len(pattern):
            return None
        for each, part in zip(pattern, value, strict=True):
            step = match(each, part, found)
            if step is None:
                return None
            found = step
        return found
    return found if pattern == value else None


def _replace(recorded: Recorded, node: fx.Node, function: Any, *args: Any) -> fx.Node:
    with recorded.graph.inserting_before(node):
        made: fx.Node = recorded.graph.call_function(function, args)
    made.meta = node.meta
    node.replace_all_uses_with(made)
    recorded.graph.erase_node(node)
    return made


def _use_norms(recorded: Recorded, native: Native) -> None:
    for node in [*recorded.graph.nodes]:
        of_32 = isinstance(value := node.meta.get("val"), Tensor) and value.dtype is torch.float32
        found = match(RMS_NORM_32 if of_32 else RMS_NORM, node, {}) or match(LAYER_NORM, node, {})
        if found is None:
            continue
        x, weight, bias = found["x"], found["weight"], found.get("bias")
        constants = [recorded.constants.get(str(each.target)) for each in (weight, bias) if isinstance(each, fx.Node)]
        if len(constants) != (2 if "bias" in found else 1):
            continue
        if not all(constant is not None and native.norms(constant) for constant in constants):
            continue
        if not _are_of_one_format(x, weight, *([bias] if bias is not None else [])):
            continue
        if [str(each) for each in constants[0].shape] != shape(x)[-1:]:  # type: ignore[union-attr]
            continue
        if node.target is _mul:
            _replace(recorded, node, native.norm, x, weight, None, found["epsilon"])
            continue
        # A layer norm also tells means and deviations, which no model asks for.
        first = [user for user in node.users if user.args[1] == 0]
        if len(first) == len(node.users) == 1:
            _replace(recorded, first[0], native.norm, x, weight, bias, found["epsilon"])
            recorded.graph.erase_node(node)


def _join_sums(recorded: Recorded, native: Native) -> None:
    """Let one kernel compute a sum and the norm that is the first to use it."""
    for norm in [node for node in recorded.graph.nodes if node.target == native.norm]:
        added, *parameters = norm.args
        first = next(node for node in _following(added) if added in node.all_input_nodes)
        if not _joins_two(added, _add) or norm is not first:
            continue
        with recorded.graph.inserting_before(norm):
            both = recorded.graph.call_function(native.add_norm, (*added.args, *parameters))
            total, normed = (recorded.graph.call_function(operator.getitem, (both, at)) for at in range(2))
        total.meta = normed.meta = added.meta
        norm.replace_all_uses_with(normed)
        recorded.graph.erase_node(norm)
        added.replace_all_uses_with(total)
        recorded.graph.erase_node(added)


def _use_rotations(recorded: Recorded, native: Native) -> None:
    for node in recorded.graph.find_nodes(op="call_function", target=_add):
        found = match(ROTATION, node, {})
        if found is None:
            continue
        x, cosine, sine = found["x"], found["cosine"], found["sine"]
        _, _, rows, width = shape(x) if len(shape(x)) == 4 else [""] * 4
        alike = shape(cosine) == shape(sine) == ["1", rows, width] and str(2 * found["half"]) == width
        if alike and _are_of_one_format(x, cosine, sine) and native.computes(x.meta["val"].dtype):
            _replace(recorded, node, native.rotate, x, cosine, sine)


def _use_products(recorded: Recorded, native: Native) -> None:
    for node in recorded.graph.find_nodes(op="call_function", target=_mul):
        if _joins_two(node, _mul) and native.computes(node.meta["val"].dtype):
            _replace(recorded, node, native.product, *node.args)


def _tabulate_positions(recorded: Recorded, native: Native, max_context: int) -> None:
    """Compute what depends on nothing but the position beforehand, and look it up."""
    graph, constants = recorded.graph, recorded.constants
    positions = next(node for node in graph.nodes if node.op == "placeholder" and node.target == "positions")
    known: dict[fx.Node, Any] = {node: constants[str(node.target)] for node in graph.nodes if node.op == "get_attr"}
    values: dict[fx.Node, Any] = {positions: torch.arange(max_context, device=positions.meta["val"].device)[None]}
    for node in graph.nodes:
        used = node.all_input_nodes
        if node.op != "call_function" or not used or any(each not in known and each not in values for each in used):
            continue
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs), lambda each: known[each] if each in known else values[each]
        )
        (values if values.keys() & used else known)[node] = node.target(*args, **kwargs)
    del values[positions]
    for node, value in values.items():
        wanted = any(user not in values for user in node.users)
        looked_up = node.target in (native.lookup, _aten.embedding.default)
        if wanted and not looked_up and isinstance(value, Tensor) and value.shape[:2] == (1, max_context):
            if value.ndim != 3:
                continue
            name = f"positions{len(constants)}"
            constants[name] = value[0].contiguous()
            with graph.inserting_before(node):
                table = graph.get_attr(name)
            table.meta["val"] = constants[name]
            _replace(recorded, node, native.lookup, table, positions)


def _look_rows_up(recorded: Recorded, native: Native) -> None:
    """Let the kernel fetch embeddings and the rows that are kept."""
    for node in [*recorded.graph.nodes]:
        if node.target is _aten.embedding.default:
            table, ids = node.args[:2]  # the rest is for training
        elif node.target is _aten.index.Tensor and node.args[1][:-1] == [None] and len(node.args[1]) == 2:
            table, ids = node.args[0], node.args[1][1]
            if table.meta["val"].ndim != 3:
                continue
        else:
            continue
        _replace(recorded, node, native.lookup, table, ids)


def _joins_two(node: Any, target: Any) -> bool:
    """Whether a node is ``target`` of two tensors of one shape and format."""
    if not isinstance(node, fx.Node) or node.target is not target or node.kwargs:
        return False
    values = [each.meta.get("val") for each in node.args if isinstance(each, fx.Node)]
    tensors = [value for value in values if isinstance(value, Tensor)]
    return len(tensors) == 2 and tensors[0].dtype == tensors[1].dtype and tensors[0].shape == tensors[1].shape


def _are_of_one_format(*nodes: Any) -> bool:
    values = [node.meta.get("val") for node in nodes if isinstance(node, fx.Node)]
    tensors = [value for value in values if isinstance(value, Tensor)]
    return len(tensors) == len(nodes) and len({tensor.dtype for tensor in tensors}) == 1


def _following(node: fx.Node) -> Iterator[fx.Node]:
    while (node := node.next).op != "root":
        yield node
