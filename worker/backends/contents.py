"""What files hold, as digests that are remembered: weights are read for one only once a machine."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

PIECE_BYTES = 2**24


def cache_folder() -> Path:
    """Where all that is remembered of files lies."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "touchstone"


def digest(path: Path, report: Callable[[float], None] = lambda share: None) -> str:
    """SHA-256 of a file in hexadecimal, remembered for as long as its size and time stay the same.

    ``report`` is told what share of it has been read.
    """
    there = path.stat()
    seen = {"path": str(path.resolve()), "size": there.st_size, "mtime": there.st_mtime_ns}
    note = cache_folder() / "digests" / f"{hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32]}.sha256"
    try:
        return note.read_text(encoding="ascii")
    except OSError:
        logger.info("reading %s once to know it again", path)
    made, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            made.update(piece)
            done += len(piece)
            report(done / max(there.st_size, 1))
    note.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=note.parent, encoding="ascii", delete=False) as own:
        own.write(made.hexdigest())
    Path(own.name).replace(note)
    return made.hexdigest()


@dataclass(frozen=True)
class Contents:
    """Files of a folder as they were when they were looked at: of each its size in bytes and its time in ns."""

    folder: Path
    seen: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, folder: Path, names: Iterable[str]) -> "Contents":
        return cls(folder, {name: _state(folder / name) for name in names if (folder / name).is_file()})

    def digest(self) -> str | None:
        """A digest of names and contents; None where a file is no longer what was looked at. Raises `OSError`."""
        made = hashlib.sha256()
        for name in sorted(self.seen):
            made.update(f"{name}\n{digest(self.folder / name)}\n".encode())
        same = all(_state(self.folder / name) == state for name, state in self.seen.items())
        return made.hexdigest() if same else None


def _state(path: Path) -> tuple[int, int]:
    there = path.stat()
    return there.st_size, there.st_mtime_ns
