"""What a model computes, as a graph of torch's operators with its sizes left open.

The model runs twice, over inputs of different sizes, and its operators are noted. A number that differs between both
is a size: that of the tokens read, that of the rows kept, or a multiple of one.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

Program = Callable[[Tensor, Tensor, Tensor], Tensor]

SIZES = ((23, 3), (29, 5))  # rows and kept rows of both runs: primes, which no model's own sizes are likely to be


@dataclass(frozen=True)
class Call:
    """An operator that was called, and its outcome."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any


@dataclass
class Recorded:
    """A graph of ids ``[1, rows]``, positions ``[1, rows]`` and kept places, and the tensors that it names.

    ``val`` in a node's meta is its outcome in the first run.
    """

    graph: fx.Graph = field(default_factory=fx.Graph)
    constants: dict[str, Tensor] = field(default_factory=dict)


def trace(forward: Program, device: torch.device) -> Recorded:
    """Raises `NotImplementedError` where no such graph computes the same, and whatever ``forward`` raises."""
    one, other = (_run(forward, device, rows, kept) for rows, kept in SIZES)
    if [call.function for call in one.calls] != [call.function for call in other.calls]:
        raise NotImplementedError("a model whose operators depend on the number of tokens")
    builder = _Builder(one.inputs)
    for call, alike in zip(one.calls, other.calls, strict=True):
        builder.add(call, alike)
    builder.recorded.graph.output(builder.translate(one.out, other.out))
    return builder.recorded


def shape(node: Any) -> list[str]:
    """Sizes as they are written; of the first outcome, if a node has several."""
    value = node.meta.get("val")
    value = value[0] if isinstance(value, tuple | list) else value
    return list(map(str, value.shape)) if isinstance(value, Tensor) else []


class _Run(TorchDispatchMode):
    """Notes the operators that are called, the composed ones as what they are composed of."""

    def __init__(self, inputs: tuple[Tensor, Tensor, Tensor]):
        super().__init__()
        self.inputs = inputs
        self.calls: list[Call] = []
        self.out: Tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        if func._schema.is_mutable:
            raise NotImplementedError(f"{func} changes a tensor in place")
        out = _unattended(*args) if func is torch.ops.touchstone.attention.default else func(*args, **kwargs)
        self.calls.append(Call(func, args, kwargs, out))
        return out


def _unattended(query: Tensor, key: Tensor, value: Tensor, *options: Any) -> Tensor:
    """Of the shape that attention has; there is no cache to attend to."""
    return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3])


def _run(forward: Program, device: torch.device, rows: int, kept: int) -> _Run:
    ids = torch.zeros(1, rows, dtype=torch.long, device=device)
    run = _Run((ids, torch.arange(rows, device=device)[None], torch.arange(kept, device=device)))
    with torch.no_grad(), run:
        run.out = forward(*run.inputs)
    return run


class _Builder:
    """Writes the first run down as a graph."""

    def __init__(self, inputs: tuple[Tensor, Tensor, Tensor]):
        self.recorded = Recorded()
        graph = self.recorded.graph
        names = ("ids", "positions", "kept")
        self._nodes = {id(value): graph.placeholder(name) for name, value in zip(names, inputs, strict=True)}
        ids, _, kept = self._nodes.values()
        for node, value in zip(self._nodes.values(), inputs, strict=True):
            node.meta["val"] = value
        size = torch.ops.aten.sym_size.int
        self._sizes = graph.call_function(size, (ids, 1)), graph.call_function(size, (kept, 0))

    def add(self, call: Call, alike: Call) -> None:
        """``alike`` is the same call in the other run."""
        graph = self.recorded.graph
        args = self.translate(call.args, alike.args)
        node = graph.call_function(call.function, args, self.translate(call.kwargs, alike.kwargs))
        node.meta["val"] = call.out
        if isinstance(call.out, Tensor):
            self._nodes[id(call.out)] = node
            return
        for at, value in enumerate(call.out):
            if isinstance(value, Tensor):
                part = graph.call_function(operator.getitem, (node, at))
                part.meta["val"] = value
                self._nodes[id(value)] = part

    def translate(self, value: Any, alike: Any) -> Any:
        if isinstance(value, Tensor):
            return self._nodes.get(id(value)) or self._constant(value)
        if isinstance(value, dict):
            return {name: self.translate(value[name], alike[name]) for name in value}
        if isinstance(value, list | tuple):
            return type(value)(self.translate(one, other) for one, other in zip(value, alike, strict=True))
        return value if value == alike else self._size(value, alike)

    def _constant(self, value: Tensor) -> fx.Node:
        name = f"constant{len(self.recorded.constants)}"
        self.recorded.constants[name] = value
        node = self._nodes[id(value)] = self.recorded.graph.get_attr(name)
        node.meta["val"] = value
        return node

    def _size(self, value: Any, alike: Any) -> fx.Node:
        for size, one, other in zip(self._sizes, *SIZES, strict=True):
            if value * other == alike * one and value % one == 0:
                times = value // one
                return size if times == 1 else self.recorded.graph.call_function(operator.mul, (size, times))
        raise NotImplementedError(f"a number that is {value} for {SIZES[0]} rows and {alike} for {SIZES[1]}")
