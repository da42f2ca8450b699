"""Files that people hand in, kept until they are read: bytes in the data folder, the rest in the ledger."""

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tasks.errors import InvalidInput, NotFound
from tasks.ledger import Ledger
from tasks.ledger.records import Upload
from tasks.schema import storable

PROMPTS = "prompts"  # the purpose of a file that becomes a run soon
KEEP_SECONDS = 86_400.0  # for such a file
PIECE_BYTES = 2**20
MAX_NAME = 255


class UploadStore:
    """``folder`` must be the same for every process that takes or reads files."""

    def __init__(self, ledger: Ledger, folder: Path):
        self.ledger, self.folder = ledger, folder

    def store(
        self, stream: IO[bytes], name: str, owner: str, purpose: str = PROMPTS, limit: int | None = None
    ) -> Upload:
        """Keep what ``stream`` holds; it is there as a whole, or not at all.

        Raises `InvalidInput` for an empty file and for one of more than ``limit`` bytes.
        """
        self.remove_outdated()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        upload_id = f"file-{secrets.token_hex(12)}"
        draft = self.folder / f"{upload_id}.part"
        try:
            size, digest = _copied(stream, draft, limit)
            if not size:
                raise InvalidInput(f"{name} is empty; choose another file.", "file")
            draft.rename(self.folder / upload_id)
            _sync(self.folder)
            return self.ledger.uploads.add(
                Upload(upload_id, storable(name[:MAX_NAME]), purpose, size, digest, owner, 0.0)
            )
        except BaseException:
            for file in (draft, self.folder / upload_id):
                file.unlink(missing_ok=True)
            raise

    @contextmanager
    def open(self, upload_id: str, owner: str | None = None) -> Iterator[tuple[Upload, IO[bytes]]]:
        """What is known of a file, and its bytes. Raises `NotFound`."""
        found = self.ledger.uploads.get(upload_id, owner)
        try:
            file = (self.folder / found.id).open("rb")
        except FileNotFoundError:
            raise NotFound(f"The bytes of {found.name} are gone from {self.folder}; upload it again.") from None
        with file:
            yield found, file

    def delete(self, upload_id: str) -> None:
        """Remove a file; raises `NotFound`."""
        found = self.ledger.uploads.get(upload_id)
        self.ledger.uploads.delete(found.id)
        (self.folder / found.id).unlink(missing_ok=True)

    def remove_outdated(self) -> None:
        """Remove files of prompts that nobody needs any more, and what is left of uploads that never ended."""
        # Of several that look at once each finds the same, and some of it gone already.
        for upload_id in self.ledger.uploads.outdated(PROMPTS, KEEP_SECONDS):
            with suppress(NotFound):
                self.delete(upload_id)
        old = [path for path in self.folder.glob("*") if _changed(path) < time.time() - KEEP_SECONDS]
        known = self.ledger.uploads.known([path.name for path in old])
        for path in old:
            if path.name not in known:
                path.unlink(missing_ok=True)


def _changed(path: Path) -> float:
    """When a file was last written to, in seconds since 1970; of one that is gone, just now."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _copied(stream: IO[bytes], path: Path, limit: int | None) -> tuple[int, str]:
    """Bytes that were copied, and their digest; they are on the disk when this returns."""
    size, made = 0, hashlib.sha256()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while piece := stream.read(PIECE_BYTES):
            size += len(piece)
            if limit is not None and size > limit:
                raise InvalidInput(f"The file is larger than {limit} bytes, the limit; split it.", "file")
            made.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return size, made.hexdigest()


def _sync(folder: Path) -> None:
    """A name in a folder survives a loss of power only when the folder itself was written."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
