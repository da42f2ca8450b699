"""What the kernels are called with, as their sources say it in C++. A tensor is where it begins."""

import ctypes

Pointer, Long, Int = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


class Strides(ctypes.Structure):
    _fields_ = (("token", Long), ("head", Long))


class Attention(ctypes.Structure):
    _fields_ = (
        *((name, Pointer) for name in ("query", "key", "value", "out", "keys", "values", "slots", "positions")),
        *((name, Long) for name in ("tokens", "heads", "key_heads", "capacity", "dim", "window")),
        *((name, Strides) for name in ("of_query", "of_key", "of_value")),
        ("scale", ctypes.c_float),
        ("threads", Int),
    )


class Linear(ctypes.Structure):
    _fields_ = (
        *((name, Pointer) for name in ("x", "weight", "bias", "out")),
        *((name, Long) for name in ("rows", "inputs", "outs")),
        ("post", Int),
        ("threads", Int),
    )


class Norm(ctypes.Structure):
    _fields_ = (
        *((name, Pointer) for name in ("one", "other", "weight", "bias", "sum", "normed")),
        *((name, Long) for name in ("rows", "width")),
        ("epsilon", ctypes.c_float),
        ("threads", Int),
    )


class Rotation(ctypes.Structure):
    _fields_ = (
        *((name, Pointer) for name in ("x", "cosine", "sine", "out")),
        *((name, Long) for name in ("tokens", "heads", "dim")),
        ("of_x", Strides),
        ("threads", Int),
    )


class Product(ctypes.Structure):
    _fields_ = (
        *((name, Pointer) for name in ("one", "other", "out")),
        ("count", Long),
        ("threads", Int),
    )


class Lookup(ctypes.Structure):
    _fields_ = (
        *((name, Pointer) for name in ("table", "ids", "out")),
        *((name, Long) for name in ("rows", "known", "width")),
        ("size", Int),
        ("threads", Int),
    )


class Step(ctypes.Structure):
    """A kernel and what it is called with."""

    _fields_ = (("kernel", Pointer), ("call", Pointer))


class DrawRow(ctypes.Structure):
    """What a row's next token depends on; ``tokens`` may be null where neither penalty nor n-gram needs them."""

    _fields_ = (
        ("tokens", Pointer),
        ("count", Long),
        ("seed", ctypes.c_uint64),
        ("position", ctypes.c_uint64),
        *((name, ctypes.c_float) for name in ("temperature", "top_p", "penalty")),
        *((name, Int) for name in ("top_k", "ngram", "wants_logprob")),
    )
