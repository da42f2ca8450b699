"""The processor that the engine computes for: the one that is here, or an older class that it is to behave like.

``TOUCHSTONE_PROCESSOR`` names the class, so that what an ordinary processor does can be seen on a newer one.
"""

import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tasks.errors import ConfigurationError

VARIABLE = "TOUCHSTONE_PROCESSOR"


class Processor(StrEnum):
    """``NATIVE`` is the processor as it is, with all it can do."""

    NATIVE = "native"
    AVX2 = "avx2"
    AVX512 = "avx512"


@dataclass(frozen=True)
class Limit:
    """What a class of processors allows.

    ``march`` is the compiler's name for it and ``needs`` are the instruction sets that it implies, named as in
    /proc/cpuinfo. ``hides`` are beginnings of the names that it does not have, except those in ``needs``.
    ``libraries`` are the variables that limit torch, oneDNN and MKL; each is read once, when torch is imported.
    """

    march: str
    needs: frozenset[str]
    hides: tuple[str, ...]
    libraries: Mapping[str, str]


_NEWER = ("avx512", "avx_vnni", "avx10", "amx")
_V3 = frozenset(("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"))
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LIMITS: Mapping[str, Limit] = {
    Processor.AVX2: Limit(
        "x86-64-v3",
        _V3,
        _NEWER,
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    ),
    Processor.AVX512: Limit(
        "x86-64-v4",
        _V4,
        _NEWER,
        {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    ),
}


def chosen() -> Processor:
    """The class to behave like. Raises `ConfigurationError` for an unknown one and for one that is beyond this one."""
    wanted = os.environ.get(VARIABLE) or Processor.NATIVE
    if wanted not in tuple(Processor):
        raise ConfigurationError(f"{VARIABLE} is {wanted!r}; set it to one of {', '.join(Processor)}, or unset it.")
    processor = Processor(wanted)
    missing = sorted(LIMITS[processor].needs - present()) if processor in LIMITS else []
    if missing:
        raise ConfigurationError(
            f"{VARIABLE} is {wanted!r}, but the processor of this machine has no {', '.join(missing)}; "
            f"set {VARIABLE} to {Processor.NATIVE.value!r}, or unset it."
        )
    return processor


def limit_libraries() -> None:
    """Let torch and its libraries behave like the chosen class, too. To be called before torch is imported.

    An unknown class limits nothing here, as this runs while modules are imported: `chosen` refuses it afterwards.
    Raises `RuntimeError` where it is too late.
    """
    limit = LIMITS.get(os.environ.get(VARIABLE, ""))
    if limit is None or limit.libraries.items() <= os.environ.items():
        return
    if "torch" in sys.modules:
        raise RuntimeError(f"torch was imported before the package worker read {VARIABLE}")
    os.environ.update(limit.libraries)


def march() -> str:
    """What the compiler's option of that name is to be."""
    limit = LIMITS.get(chosen())
    return "native" if limit is None else limit.march


def instruction_sets() -> frozenset[str]:
    """Those that may be used, named as in /proc/cpuinfo; none where the system does not list them."""
    limit = LIMITS.get(chosen())
    if limit is None:
        return present()
    return frozenset(name for name in present() if name in limit.needs or not name.startswith(limit.hides))


@functools.cache
def present() -> frozenset[str]:
    """The instruction sets of this machine's processor, whatever class it is to behave like."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    return frozenset(line.partition(":")[2].split())
