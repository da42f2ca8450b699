"""GGUF files, turned once into a folder of safetensors that loads like any other.

The folder lies in ``$XDG_CACHE_HOME/touchstone``, named for what is in the file, not for where it is.
"""

import fcntl
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tasks.errors import ModelError
from tasks.registry.inspection import Inspection
from tasks.settings import ROOT
from tasks.states import LoadStage
from worker.backends import contents
from worker.backends.protocol import Report

logger = logging.getLogger(__name__)

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


def cache_folder() -> Path:
    return contents.cache_folder() / "gguf"


def converted(path: Path, inspection: Inspection, dtype: str, report: Report) -> Path:
    """The folder with the weights of a GGUF file as ``dtype``, its tokenizer and its chat template.

    Several workers may ask at once: one converts, the others wait. Raises `ModelError`.
    """
    name = f"{digest(path, report)[:32]}-{dtype}-transformers-{version('transformers')}"
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    report(LoadStage.CONVERTING)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f"{name}.lock"):
        if folder.is_dir():
            return folder
        _check_room(path, inspection.parameters * WIDTHS[dtype], folder.parent)
        unfinished = folder.parent / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
        try:
            _dequantize(path, unfinished, dtype)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _check_room(path: Path, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{path.name} takes {needed / 1e9:.1f} GB once its weights are unpacked, and {free / 1e9:.1f} GB are free "
            f"in {folder}; make room, or set XDG_CACHE_HOME to a folder on another disk."
        )


def _dequantize(path: Path, folder: Path, dtype: str) -> None:
    """In a process of its own: the worker stays without what only this needs."""
    command = [sys.executable, "-m", "worker.backends.dequantize", str(path), str(folder), dtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        logger.info("converting %s: %s", path, done.stderr[-2000:])
        said = (done.stdout.strip().splitlines() or [f"the conversion ended with {done.returncode}"])[-1]
        raise ModelError(f"{path.name}: {said}")


def digest(path: Path, report: Report) -> str:
    """SHA-256 of a file in hexadecimal, remembered for as long as its size and time stay the same."""
    return contents.digest(path, lambda share: report(LoadStage.CONVERTING, share / 2))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
