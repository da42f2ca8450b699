"""Generates the text of a Python function from a graph."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from worker.engine.tracer import Program, Recorded

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


class CodeGenerator:
    """Generates one line of Python for each operator of a graph."""

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
