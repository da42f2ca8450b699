"""The engine's own kernels for the CPU: built once by the machine's C++ compiler, from the folder kernels.

Without a compiler there are none, and torch does the work. It is GNU's that is asked for: torch's wheels bring GNU's
OpenMP, and with another compiler's beside it two crews of threads would share the cores.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("kernels")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
WIDE = "-mprefer-vector-width=512"
COMPILE_SECONDS = 120
POSTS = ("none", "relu", "gelu_tanh", "gelu", "silu")
LANES = 16
DIMS = frozenset((16, 32, 48, 64, 80, 96, 128, 256))
OFF = "TOUCHSTONE_NATIVE"

_Pointer, _Long, _Int = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


class _Strides(ctypes.Structure):
    _fields_ = (("token", _Long), ("head", _Long))


class _Attention(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("query", "key", "value", "out", "keys", "values", "slots", "positions")),
        *((name, _Long) for name in ("tokens", "heads", "key_heads", "capacity", "dim", "window")),
        *((name, _Strides) for name in ("of_query", "of_key", "of_value")),
        ("scale", ctypes.c_float),
        ("threads", _Int),
    )


class _Linear(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("x", "weight", "bias", "out")),
        *((name, _Long) for name in ("rows", "inputs", "outs")),
        ("post", _Int),
        ("threads", _Int),
    )


class _AddNorm(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("one", "other", "weight", "bias", "sum", "normed")),
        *((name, _Long) for name in ("rows", "width")),
        ("epsilon", ctypes.c_float),
        ("threads", _Int),
    )


class DrawRow(ctypes.Structure):
    """What a row's next token depends on; ``tokens`` may be null where neither penalty nor n-gram needs them."""

    _fields_ = (
        ("tokens", _Pointer),
        ("count", _Long),
        ("seed", ctypes.c_uint64),
        ("position", ctypes.c_uint64),
        *((name, ctypes.c_float) for name in ("temperature", "top_p", "penalty")),
        *((name, _Int) for name in ("top_k", "ngram", "wants_logprob")),
    )


class Native:
    """The kernels of a built library. Everything is contiguous unless said, on the CPU, and checked by the caller."""

    def __init__(self, library: ctypes.CDLL):
        library.packed_size.restype = _Long
        self._library = library
        self._attend = {torch.float32: library.attend_float32, torch.bfloat16: library.attend_bfloat16}
        self._sample = {torch.float32: library.sample_float32, torch.bfloat16: library.sample_bfloat16}
        self.multiplies = bool(library.multiplies_bfloat16())

    def attends(self, dtype: torch.dtype, dim: int) -> bool:
        """Whether there is code for keys of this format and size."""
        return dtype in self._attend and dim in DIMS

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
    ) -> Tensor:
        """Write the tokens' keys and values, then attend; returns ``[tokens, query_heads, dim]``.

        ``query`` ``[query_heads, tokens, dim]``, ``key`` and ``value`` ``[heads, tokens, dim]`` with any strides but
        the last; the cache ``[slots, capacity, heads, dim]``; ``slots`` and ``positions`` ``[tokens]`` int32.
        ``window`` 0 is none. Tokens beyond those of ``slots`` belong to nobody; their outcome is 0.
        """
        heads, rows, dim = query.shape
        tokens = len(slots)
        out = query.new_empty(rows, heads, dim) if rows == tokens else query.new_zeros(rows, heads, dim)
        call = _Attention(
            *(each.data_ptr() for each in (query, key, value, out, keys, values, slots, positions)),
            *(tokens, heads, key.shape[0], keys.shape[1], dim, window),
            *(_Strides(each.stride(1), each.stride(0)) for each in (query, key, value)),
            scale,
            torch.get_num_threads(),
        )
        if self._attend[query.dtype](ctypes.byref(call)):
            raise NotImplementedError(f"attention over keys of {dim} numbers")
        return out

    def samples(self, dtype: torch.dtype) -> bool:
        """Whether there is code for logits of this format."""
        return dtype in self._sample

    def sample(self, logits: Tensor, draws: Sequence[DrawRow]) -> tuple[list[int], list[float]]:
        """A token for each row of ``logits`` ``[rows, vocabulary]``, -1 for none, and its log-probability if wanted."""
        logits = logits.contiguous()
        rows, vocabulary = logits.shape
        tokens, logprobs = torch.empty(rows, dtype=torch.int32), torch.empty(rows)
        self._sample[logits.dtype](
            _Pointer(logits.data_ptr()),
            _Long(rows),
            _Long(vocabulary),
            (DrawRow * rows)(*draws),
            _Pointer(tokens.data_ptr()),
            _Pointer(logprobs.data_ptr()),
            _Int(torch.get_num_threads()),
        )
        return tokens.tolist(), logprobs.tolist()

    def pack(self, weight: Tensor) -> Tensor:
        """A bfloat16 weight ``[outs, in]``, ``in`` even, in the layout that `linear` reads."""
        outs, inputs = weight.shape
        packed = torch.empty(self._library.packed_size(_Long(outs), _Long(inputs)), dtype=weight.dtype)
        self._library.pack_bfloat16(
            *(_Pointer(each.data_ptr()) for each in (weight, packed)),
            *(_Long(outs), _Long(inputs), _Int(torch.get_num_threads())),
        )
        return packed

    def adds_norms(self, weight: Tensor) -> bool:
        """Whether there is code for layer norms of this format and size."""
        return self.multiplies and weight.dtype is torch.bfloat16 and len(weight) % LANES == 0

    def add_norm(
        self, one: Tensor, other: Tensor, weight: Tensor, bias: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        """The sum of two tensors ``[…, width]`` and its layer norm, for a ``weight`` that `adds_norms`."""
        one, other = one.contiguous(), other.contiguous()
        added, normed = torch.empty_like(one), torch.empty_like(one)
        width = one.shape[-1]
        call = _AddNorm(
            *(each.data_ptr() for each in (one, other, weight, bias, added, normed)),
            *(one.numel() // width, width, epsilon, torch.get_num_threads()),
        )
        self._library.add_norm_bfloat16(ctypes.byref(call))
        return added, normed

    def embed(self, ids: Tensor, packed: Tensor, width: int) -> Tensor:
        """Rows ``ids`` ``[…]`` of a packed weight ``[any, width]``: ``[…, width]``."""
        ids = ids.contiguous()
        out = torch.empty(*ids.shape, width, dtype=packed.dtype)
        self._library.embed_bfloat16(
            *(_Pointer(each.data_ptr()) for each in (packed, ids, out)),
            *(_Long(ids.numel()), _Long(width), _Int(torch.get_num_threads())),
        )
        return out

    def linear(self, x: Tensor, packed: Tensor, bias: Tensor | None, outs: int, post: int) -> Tensor:
        """``post(x W' + b)`` for ``x`` ``[…, in]`` bfloat16; ``post`` is a place in ``POSTS``."""
        x = x.contiguous()
        inputs = x.shape[-1]
        out = torch.empty(*x.shape[:-1], outs, dtype=x.dtype)
        call = _Linear(
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
        self._library.linear_bfloat16(ctypes.byref(call))
        return out


@functools.cache
def load() -> Native | None:
    """The kernels, built if they are not there yet; None, with the reason in the log, where there are none."""
    if os.environ.get(OFF) == "0":
        return None
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        logger.info("no C++ compiler is here, so torch's slower attention is used; install g++ for the engine's own")
        return None
    try:
        library = _built(compiler)
        return Native(ctypes.CDLL(str(library)))
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        shown = getattr(error, "stderr", None) or str(error)
        logger.warning("the engine's own kernels cannot be built, so torch's are used: %s", shown.strip()[-500:])
        return None


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


def _built(compiler: str) -> Path:
    """The library for these sources, this compiler and this processor, from an earlier start or new."""
    texts = [path.read_bytes() for path in sorted(SOURCES.iterdir())]
    flags = [*FLAGS, WIDE] if platform.machine() in ("x86_64", "AMD64") else list(FLAGS)
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=COMPILE_SECONDS, check=True).stdout
    digest = hashlib.sha256(b"\0".join([*texts, version, " ".join(flags).encode(), _processor()])).hexdigest()
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    library = root / "touchstone" / f"kernels-{digest[:16]}.so"
    if not library.exists():
        _compile(compiler, flags, library)
    return library


def _compile(compiler: str, flags: Sequence[str], library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    # Several workers may build at once: each its own file, put in place whole.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / "made.so"
        sources = sorted(str(path) for path in SOURCES.glob("*.cpp"))
        command = [compiler, *flags, "-o", str(made), *sources]
        subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=True)
        made.replace(library)


def _processor() -> bytes:
    """What the compiler's choice of instructions depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor().encode()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))})).encode()
