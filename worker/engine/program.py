"""A model's forward pass as one flat function: recorded once, without the layers of modules around its operators.

With small models and few rows most of a step is spent between operators, in Python. Recording follows the model's own
code once, with sizes left open; nothing here knows a model.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from worker.engine.native import Native
from worker.engine.tracer import Program, Recorded, trace

_aten = torch.ops.aten
# Methods and operators cost less to call than the entries of torch.ops that they lead to.
METHODS: dict[Any, Callable[..., Any]] = {
    _aten.view.default: Tensor.view,
    _aten.transpose.int: Tensor.transpose,
    _aten.split.Tensor: Tensor.split,
    _aten.unsqueeze.default: Tensor.unsqueeze,
    _aten.expand.default: Tensor.expand,
    _aten.sym_size.int: Tensor.size,
    _aten.add.Tensor: operator.add,
    _aten.mul.Tensor: operator.mul,
    _aten.embedding.default: torch.embedding,
    _aten.native_layer_norm.default: torch.layer_norm,
}
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
    forward: Program, device: torch.device, computed_by: Mapping[Any, Callable[..., Any]], native: Native | None
) -> Recording:
    """``forward`` of token ids ``[1, tokens]``, positions ``[1, tokens]`` and kept places ``[kept]``, flattened.

    In the place of an operator in ``computed_by`` its function is called, and ``native`` does what it can do at once.
    Raises whatever recording raises.
    """
    recorded = trace(forward, device)
    for copied in recorded.graph.find_nodes(op="call_function", target=_aten.clone.default):
        # Nothing recorded is changed in place, so a copy is as good as its source.
        copied.replace_all_uses_with(copied.args[0])
    for view in recorded.graph.find_nodes(op="call_function", target=_aten.view.default):
        if _shape(view) == _shape(view.args[0]):
            view.replace_all_uses_with(view.args[0])
    recorded.graph.eliminate_dead_code()
    _keep_early(recorded)
    if native is None:
        return Recording(_Writer(recorded, {**METHODS, **computed_by}).function(), False)
    _join_sums_with_norms(recorded, native)
    _look_rows_up(recorded, native)
    kernels = {native.add_norm, native.lookup, *computed_by, *VIEWS}
    calls = recorded.graph.nodes
    only_kernels = all(node.op != "call_function" or node.target in kernels for node in calls)
    return Recording(_Writer(recorded, {**METHODS, **computed_by}).function(), only_kernels)


def _join_sums_with_norms(recorded: Recorded, native: Native) -> None:
    """Let one kernel compute a sum and the layer norm that is the first to use it."""
    for norm in recorded.graph.find_nodes(op="call_function", target=_aten.native_layer_norm.default):
        added, shape, *parameters, epsilon = norm.args
        found = [recorded.constants.get(str(each.target)) for each in parameters if isinstance(each, fx.Node)]
        weights = [each for each in found if isinstance(each, Tensor) and native.adds_norms(each)]
        if not (
            len(weights) == 2
            and _is_sum_of(added, weights[0].dtype)
            and norm is next(node for node in _following(added) if added in node.all_input_nodes)
            and len(shape) == 1
        ):
            continue
        with recorded.graph.inserting_before(norm):
            both = recorded.graph.call_function(native.add_norm, (*added.args, *parameters, epsilon))
            total = recorded.graph.call_function(operator.getitem, (both, 0))
            normed = recorded.graph.call_function(operator.getitem, (both, 1))
        total.meta = normed.meta = added.meta
        added.replace_all_uses_with(total, delete_user_cb=lambda user, norm=norm: user is not norm)
        for user in list(norm.users):
            if user.args[1] == 0:
                user.replace_all_uses_with(normed)
            recorded.graph.erase_node(user)
        recorded.graph.erase_node(norm)
        recorded.graph.erase_node(added)


def _keep_early(recorded: Recorded) -> None:
    """Choose the rows that are kept as early as no other row is needed: after the last attention, not at the end."""
    chosen = list(recorded.graph.find_nodes(op="call_function", target=_aten.index.Tensor))
    if len(chosen) != 1 or len(_shape(chosen[0].args[0])) != 3 or chosen[0].args[1][:-1] != [None]:
        return
    (choice,) = chosen
    row = _shape(choice.args[0])[:2]
    late = {choice}
    for node in reversed(recorded.graph.nodes):
        if _is_by_row(node, row) and node.users and late.issuperset(node.users):
            late.add(node)
    early: dict[fx.Node, fx.Node] = {}
    for node in [each for each in recorded.graph.nodes if each in late and each is not choice]:
        for used in node.all_input_nodes:
            if used in late or _shape(used)[:2] != row:
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
    return node.target in BY_ROW and _shape(node)[:2] == row


def _shape(node: Any) -> list[str]:
    """Sizes as they are written; of the first outcome, if a node has several."""
    value = node.meta.get("val")
    value = value[0] if isinstance(value, tuple | list) else value
    return list(map(str, value.shape)) if isinstance(value, Tensor) else []


def _look_rows_up(recorded: Recorded, native: Native) -> None:
    """Let the kernel fetch embeddings and the rows that are kept."""
    for node in [*recorded.graph.nodes]:
        if node.target is _aten.embedding.default and len(node.args) == 2:
            table, ids = node.args
        elif node.target is _aten.index.Tensor and node.args[1][:-1] == [None] and len(node.args[1]) == 2:
            table, ids = node.args[0], node.args[1][1]
            if table.meta["val"].ndim != 3:
                continue
        else:
            continue
        with recorded.graph.inserting_before(node):
            found = recorded.graph.call_function(native.lookup, (table, ids))
        found.meta = node.meta
        node.replace_all_uses_with(found)
        recorded.graph.erase_node(node)


def _is_sum_of(node: Any, dtype: torch.dtype) -> bool:
    """Whether a node adds two tensors of the same shape and this format."""
    if not isinstance(node, fx.Node) or node.target is not _aten.add.Tensor or node.kwargs:
        return False
    values = [each.meta.get("val") if isinstance(each, fx.Node) else None for each in node.args]
    tensors = [value for value in values if isinstance(value, Tensor) and value.dtype == dtype]
    return len(tensors) == 2 and list(map(str, tensors[0].shape)) == list(map(str, tensors[1].shape))


def _following(node: fx.Node) -> Iterator[fx.Node]:
    while (node := node.next).op != "root":
        yield node


class _Writer:
    """Writes a graph as the text of a Python function, a line an operator."""

    def __init__(self, recorded: Recorded, computed_by: Mapping[Any, Callable[..., Any]]):
        self._recorded = recorded
        self._computed_by = computed_by
        self._globals: dict[str, Any] = {}
        self._names: dict[fx.Node, str] = {}
        self._lines: list[str] = []

    def function(self) -> Program:
        last_uses = _last_uses(self._recorded.graph)
        parameters = []
        for node in self._recorded.graph.nodes:
            self._names.setdefault(node, f"v{len(self._names)}")
            if node.op == "placeholder":
                parameters.append(self._names[node])
            elif node.op == "get_attr":
                self._names[node] = self._constant(self._recorded.constants[str(node.target)])
            elif node.op == "output":
                self._lines.append(f"return {self._text(node.args[0])}")
            elif (repeated := _repeated(node)) is not None:
                self._names[node] = self._names[repeated]
            else:
                self._lines.append(f"{self._names[node]} = {self._call(node)}")
            if forgotten := [self._names[used] for used in last_uses.get(node, []) if self._names[used][0] == "v"]:
                self._lines.append(f"{' = '.join(forgotten)} = None")
        body = "".join(f"    {line}\n" for line in self._lines)
        exec(compile(f"def forward({', '.join(parameters)}):\n{body}", "<recorded model>", "exec"), self._globals)
        return self._globals["forward"]

    def _call(self, node: fx.Node) -> str:
        arguments = [self._text(argument) for argument in node.args]
        arguments += [f"{name}={self._text(value)}" for name, value in node.kwargs.items()]
        if node.target is operator.getitem:
            return f"{arguments[0]}[{arguments[1]}]"
        function = node.target if node.kwargs else self._computed_by.get(node.target, node.target)
        return f"{self._constant(function)}({', '.join(arguments)})"

    def _text(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            return self._names[value]
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(self._text, value))}]"
        plain = value is None or isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))
        return repr(value) if plain else self._constant(value)

    def _constant(self, value: Any) -> str:
        name = next((name for name, known in self._globals.items() if known is value), f"c{len(self._globals)}")
        self._globals[name] = value
        return name


def _repeated(node: fx.Node) -> fx.Node | None:
    """The node that this one only repeats: of a layer norm's outcomes the program has only the first."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or node.target is not operator.getitem or node.args[1] != 0:
        return None
    return source if source.target is _aten.native_layer_norm.default else None


def _last_uses(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """For each node those that are not needed after it; one that is repeated is needed as long as its repetitions."""
    origin: dict[fx.Node, fx.Node] = {}
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        repeated = _repeated(node)
        origin[node] = node if repeated is None else origin[repeated]
        last.update({origin[used]: node for used in node.all_input_nodes})
    uses: dict[fx.Node, list[fx.Node]] = {}
    for used, node in last.items():
        if node.op != "output":
            uses.setdefault(node, []).append(used)
    return uses
