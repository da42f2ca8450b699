"""What the kernels are called with: the structs of kernels/arguments.h again. A tensor is where it begins."""

import ctypes

from tasks.errors import ConfigurationError

Pointer, Long, Int = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


class Strides(ctypes.Structure):
    _fields_ = (("token", Long), ("head", Long))


class Attention(ctypes.Structure):
    _fields_ = (
        *((name, Pointer) for name in ("query", "key", "value", "out", "keys", "values", "slots", "positions")),
        *((name, Long) for name in ("tokens", "heads", "key_heads", "capacity", "dim", "window")),
        *((name, Strides) for name in ("of_query", "of_key", "of_value")),
        *((name, ctypes.c_float) for name in ("scale", "softcap")),
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


class Field(ctypes.Structure):
    """Where the library says that a field lies, in bytes; one without a name stands for its whole struct."""

    _fields_ = (("of", ctypes.c_char_p), ("name", ctypes.c_char_p), ("offset", Long), ("size", Long))


STRUCTURES = (Strides, Attention, Linear, Norm, Rotation, Product, Lookup, DrawRow, Step)


Places = dict[tuple[str, str], tuple[int, int]]  # offset and size by struct and field


def check(library: ctypes.CDLL) -> None:
    """Compare each struct with the library's own. Raises `ConfigurationError` that names every difference."""
    library.argument_fields.restype = ctypes.POINTER(Field)
    count = Long()
    fields = library.argument_fields(ctypes.byref(count))
    theirs: Places = {(f.of.decode(), f.name.decode()): (f.offset, f.size) for f in fields[: count.value]}
    ours: Places = {(s.__name__, ""): (0, ctypes.sizeof(s)) for s in STRUCTURES}
    for structure in STRUCTURES:
        for name in (each[0] for each in structure._fields_):
            field = getattr(structure, name)
            ours[structure.__name__, name] = field.offset, field.size
    differences = [
        f"{'.'.join(filter(None, key))} is {_place(theirs.get(key))} there and {_place(ours.get(key))} here"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]
    if differences:
        raise ConfigurationError(
            f"The kernels take other arguments than worker/engine passes: {'; '.join(differences)}. "
            "Use sources of one version: install Touchstone anew."
        )


def _place(place: tuple[int, int] | None) -> str:
    return "nowhere" if place is None else f"{place[1]} bytes at {place[0]}"
