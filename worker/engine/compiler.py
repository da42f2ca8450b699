"""Builds the engine's kernels, from the folder kernels, by the machine's C++ compiler, once.

It is GNU's that is asked for: torch's wheels bring GNU's OpenMP, and with another compiler's beside it two crews of
threads would share the cores.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from worker.engine import processor

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).with_name("kernels")
FLAGS = ("-std=c++17", "-O3", "-fopenmp", "-shared", "-fPIC")
WIDE = "-mprefer-vector-width=512"
COMPILE_SECONDS = 120
OFF = "TOUCHSTONE_NATIVE"


def library() -> ctypes.CDLL | None:
    """The kernels, built if they are not there yet; None, with the reason in the log, where there are none.

    Raises `ConfigurationError` for a processor that cannot be chosen.
    """
    if os.environ.get(OFF) == "0":
        return None
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
    if compiler is None:
        logger.info("no C++ compiler is here, so torch's slower attention is used; install g++ for the engine's own")
        return None
    try:
        return ctypes.CDLL(str(_built(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        shown = getattr(error, "stderr", None) or str(error)
        logger.warning("the engine's own kernels cannot be built, so torch's are used: %s", shown.strip()[-500:])
        return None


def _built(compiler: str) -> Path:
    """The library for these sources, this compiler and this processor, from an earlier start or new."""
    texts = [path.read_bytes() for path in sorted(SOURCES.iterdir())]
    flags = [*FLAGS, f"-march={processor.march()}"]
    if platform.machine() in ("x86_64", "AMD64"):
        flags.append(WIDE)
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
