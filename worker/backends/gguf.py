"""GGUF files, turned once into a folder of safetensors that loads like any other.

The folder lies in ``$XDG_CACHE_HOME/touchstone``, named for what is in the file, not for where it is.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from tasks.errors import ModelError
from tasks.registry.inspection import Inspection
from tasks.settings import ROOT
from tasks.states import LoadStage
from worker.backends.protocol import Report

logger = logging.getLogger(__name__)

PIECE_BYTES = 2**24
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "touchstone" / "gguf"


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
    there = path.stat()
    seen = {"path": str(path.resolve()), "size": there.st_size, "mtime": there.st_mtime_ns}
    note = cache_folder() / f"{hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32]}.sha256"
    try:
        return note.read_text(encoding="ascii")
    except OSError:
        logger.info("reading %s once to know it again", path)
    made, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            made.update(piece)
            done += len(piece)
            report(LoadStage.CONVERTING, done / max(there.st_size, 1) / 2)
    note.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=note.parent, encoding="ascii", delete=False) as own:
        own.write(made.hexdigest())
    Path(own.name).replace(note)
    return made.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
