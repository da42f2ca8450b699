"""The engine's own kernels for the CPU, called with tensors. Without a compiler there are none: torch does the work."""

import ctypes
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from worker.engine import arguments, compiler

POSTS = ("none", "relu", "gelu_tanh", "gelu", "silu")
LANES = 16
DIMS = frozenset((16, 32, 48, 64, 80, 96, 128, 256))
FORMATS = (torch.float32, torch.bfloat16)
NO_SUCH_ROW, NO_CODE = 1, 2  # outcomes of a kernel, as vectors.h says
NO_PRODUCTS = "the engine's linear layer needs a processor with avx512_bf16; use torch's layers on this one"


class Native:
    """The kernels of a built library. Everything is contiguous unless said, on the CPU, and checked by the caller."""

    def __init__(self, library: ctypes.CDLL):
        library.packed_size.restype = arguments.Long
        self.library = library
        self._empty: Empty = _empty
        self._captured: list[Call] | None = None
        self._kernels = {
            (name, dtype): getattr(library, f"{name}_{str(dtype).removeprefix('torch.')}")
            for name in ("attend", "sample", "norm", "rotate", "product")
            for dtype in FORMATS
        }
        self.multiplies = bool(library.multiplies_bfloat16())  # whether there is code for `pack` and `linear`

    def attends(self, dtype: torch.dtype, dim: int) -> bool:
        """Whether there is code for keys of this format and size."""
        return dtype in FORMATS and dim in DIMS

    def computes(self, dtype: torch.dtype) -> bool:
        """Whether there is code for sampling, norms, rotations and products of this format."""
        return dtype in FORMATS

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        positions: Tensor,
        scale: float,
        window: int,
        softcap: float = 0.0,
    ) -> Tensor:
        """Write the tokens' keys and values, then attend; returns ``[tokens, query_heads, dim]``.

        ``query`` ``[query_heads, tokens, dim]``, ``key`` and ``value`` ``[heads, tokens, dim]`` with any strides but
        the last; the cache ``[slots, capacity, heads, dim]``; ``slots`` and ``positions`` ``[tokens]`` int32.
        ``window`` and ``softcap`` 0 are none. Tokens beyond those of ``slots`` belong to nobody; their outcome is 0.
        """
        heads, rows, dim = query.shape
        tokens = len(slots)
        out = self._empty((rows, heads, dim), query.dtype)
        if rows > tokens:
            out[tokens:] = 0
        call = arguments.Attention(
            *(each.data_ptr() for each in (query, key, value, out, keys, values, slots, positions)),
            *(tokens, heads, key.shape[0], keys.shape[1], dim, window),
            *(arguments.Strides(each.stride(1), each.stride(0)) for each in (query, key, value)),
            *(scale, softcap),
            torch.get_num_threads(),
        )
        self._make(self._kernels["attend", query.dtype], call)
        return out

    def sample(self, logits: Tensor, draws: Sequence[arguments.DrawRow]) -> tuple[list[int], list[float]]:
        """A token for each row of ``logits`` ``[rows, vocabulary]``, -1 for none, and its log-probability if wanted."""
        logits = logits.contiguous()
        rows, vocabulary = logits.shape
        tokens, logprobs = torch.empty(rows, dtype=torch.int32), torch.empty(rows)
        self._kernels["sample", logits.dtype](
            arguments.Pointer(logits.data_ptr()),
            arguments.Long(rows),
            arguments.Long(vocabulary),
            (arguments.DrawRow * rows)(*draws),
            arguments.Pointer(tokens.data_ptr()),
            arguments.Pointer(logprobs.data_ptr()),
            arguments.Int(torch.get_num_threads()),
        )
        return tokens.tolist(), logprobs.tolist()

    def pack(self, weight: Tensor) -> Tensor:
        """A bfloat16 weight ``[outs, in]``, ``in`` even, in the layout that `linear` reads.

        Raises `NotImplementedError` on a processor that has no code for `linear`.
        """
        if not self.multiplies:
            raise NotImplementedError(NO_PRODUCTS)
        outs, inputs = weight.shape
        packed = torch.empty(self.library.packed_size(arguments.Long(outs), arguments.Long(inputs)), dtype=weight.dtype)
        self.library.pack_bfloat16(
            *(arguments.Pointer(each.data_ptr()) for each in (weight, packed)),
            *(arguments.Long(outs), arguments.Long(inputs), arguments.Int(torch.get_num_threads())),
        )
        return packed

    def norms(self, weight: Tensor) -> bool:
        """Whether there is code for norms with weights of this format and size."""
        return self.computes(weight.dtype) and len(weight) % LANES == 0

    def norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
        """The layer norm of ``x`` ``[…, width]``, without ``bias`` the root-mean-square norm; if it `norms`."""
        return self._norm(x, None, weight, bias, epsilon)[1]

    def add_norm(
        self, one: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """The sum of two tensors ``[…, width]`` and its `norm`."""
        return self._norm(one, other, weight, bias, epsilon)

    def _norm(
        self, one: Tensor, other: Tensor | None, weight: Tensor, bias: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        one = self._whole(one)
        other = None if other is None else self._whole(other)
        added = one if other is None else self._empty(tuple(one.shape), one.dtype)
        normed = self._empty(tuple(one.shape), one.dtype)
        width = one.shape[-1]
        call = arguments.Norm(
            *(None if each is None else each.data_ptr() for each in (one, other, weight, bias, added, normed)),
            *(one.numel() // width, width, epsilon, torch.get_num_threads()),
        )
        self._make(self._kernels["norm", one.dtype], call)
        return added, normed

    def rotate(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Rotary embedding of ``x`` ``[1, heads, tokens, dim]`` by ``cosine`` and ``sine`` ``[1, tokens, dim]``.

        All of one format. Halves of a head belong together: ``x cosine + (-x's second half, x's first half) sine``.
        """
        _, heads, tokens, dim = x.shape
        x = x if x.stride(3) == 1 else self._whole(x)
        cosine, sine = self._whole(cosine), self._whole(sine)
        out = self._empty((1, tokens, heads, dim), x.dtype)
        call = arguments.Rotation(
            *(each.data_ptr() for each in (x, cosine, sine, out)),
            *(tokens, heads, dim),
            arguments.Strides(x.stride(2), x.stride(1)),
            torch.get_num_threads(),
        )
        self._make(self._kernels["rotate", x.dtype], call)
        return out.transpose(1, 2)

    def product(self, one: Tensor, other: Tensor) -> Tensor:
        """Number by number, of two tensors of one shape and format."""
        one, other = self._whole(one), self._whole(other)
        out = self._empty(tuple(one.shape), one.dtype)
        places = (each.data_ptr() for each in (one, other, out))
        call = arguments.Product(*places, out.numel(), torch.get_num_threads())
        self._make(self._kernels["product", out.dtype], call)
        return out

    def lookup(self, table: Tensor, ids: Tensor) -> Tensor:
        """Rows ``ids`` ``[…]`` of ``table`` ``[…, known, width]``, of which all but the last two sizes are 1."""
        table, ids = self._whole(table), self._whole(ids)
        *ones, known, width = table.shape
        out = self._empty((*ones, *ids.shape, width), table.dtype)
        self._look_up(self.library.lookup, table, ids, out, known)
        return out

    def embed(self, ids: Tensor, packed: Tensor, width: int) -> Tensor:
        """Rows ``ids`` ``[…]`` of a packed weight ``[any, width]``: ``[…, width]``."""
        ids = self._whole(ids)
        out = self._empty((*ids.shape, width), packed.dtype)
        self._look_up(self.library.lookup_packed, packed, ids, out, len(packed) // width)
        return out

    def _look_up(self, kernel: Any, table: Tensor, ids: Tensor, out: Tensor, known: int) -> None:
        places = (each.data_ptr() for each in (table, ids, out))
        sizes = (ids.numel(), known, out.shape[-1], table.element_size())
        self._make(kernel, arguments.Lookup(*places, *sizes, torch.get_num_threads()))

    def linear(self, x: Tensor, packed: Tensor, bias: Tensor | None, outs: int, post: int) -> Tensor:
        """``post(x W' + b)`` for ``x`` ``[…, in]`` bfloat16; ``post`` is a place in ``POSTS``.

        Raises `NotImplementedError` on a processor that has no code for it.
        """
        if not self.multiplies:
            raise NotImplementedError(NO_PRODUCTS)
        x = self._whole(x)
        inputs = x.shape[-1]
        out = self._empty((*x.shape[:-1], outs), x.dtype)
        call = arguments.Linear(
            x.data_ptr(),
            packed.data_ptr(),
            bias.data_ptr() if bias is not None else None,
            out.data_ptr(),
            x.numel() // inputs,
            inputs,
            outs,
            post,
            torch.get_num_threads(),
        )
        self._make(self.library.linear_bfloat16, call)
        return out

    @contextmanager
    def capturing(self, empty: "Empty") -> Iterator[list["Call"]]:
        """Capture the calls that are made meanwhile; what they write to comes from ``empty``."""
        captured: list[Call] = []
        self._empty, self._captured = empty, captured
        try:
            yield captured
        finally:
            self._empty, self._captured = _empty, None

    def steps(self, captured: Sequence["Call"]) -> "ctypes.Array[arguments.Step]":
        """What `replay` takes; ``captured`` must live as long."""
        calls = ((ctypes.cast(kernel, arguments.Pointer), ctypes.addressof(call)) for kernel, call in captured)
        return (arguments.Step * len(captured))(*(arguments.Step(*call) for call in calls))

    def replay(self, steps: "ctypes.Array[arguments.Step]") -> None:
        """Make captured calls again. Raises as the calls do."""
        _check(self.library.replay(steps, arguments.Long(len(steps))))

    def _whole(self, tensor: Tensor) -> Tensor:
        """The tensor, or a contiguous copy, which torch makes, so that it cannot be recorded."""
        if self._captured is not None and not tensor.is_contiguous():
            raise NotImplementedError("a tensor that is not contiguous cannot be read by captured calls")
        return tensor.contiguous()

    def _make(self, kernel: Any, call: ctypes.Structure) -> None:
        if self._captured is not None:
            self._captured.append((kernel, call))
        _check(kernel(ctypes.byref(call)))


Call = tuple[Any, ctypes.Structure]  # a kernel and its arguments
Empty = Callable[[tuple[int, ...], torch.dtype], Tensor]


def _check(outcome: int) -> None:
    if outcome == NO_SUCH_ROW:
        raise IndexError("a kernel was asked for a row that its table does not have")
    if outcome:
        raise NotImplementedError("a kernel was called that has no code for this processor or for this size of heads")


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype)


@functools.cache
def load() -> Native | None:
    """The kernels; None, with the reason in the log, where there are none.

    Raises `ConfigurationError` for a processor that cannot be chosen, and for kernels that take other arguments.
    """
    library = compiler.library()
    if library is None:
        return None
    arguments.check(library)
    return Native(library)


@torch.library.custom_op("touchstone::linear", mutates_args=())
def linear(x: Tensor, packed: Tensor, bias: Tensor | None, outs: int, post: int) -> Tensor:
    """`Native.linear` as an operator, so that a recording can see it."""
    native = load()
    assert native is not None
    return native.linear(x, packed, bias, outs, post)


@linear.register_fake
def _(x: Tensor, packed: Tensor, bias: Tensor | None, outs: int, post: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], outs)


@torch.library.custom_op("touchstone::embed", mutates_args=())
def embed(ids: Tensor, packed: Tensor, width: int) -> Tensor:
    """`Native.embed` as an operator."""
    native = load()
    assert native is not None
    return native.embed(ids, packed, width)


@embed.register_fake
def _(ids: Tensor, packed: Tensor, width: int) -> Tensor:
    return packed.new_empty(*ids.shape, width)
