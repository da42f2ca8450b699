"""A file to write to whose bytes are taken out again as they come: for libraries that only write to files."""

import io
from typing import Any


class Pipe(io.RawIOBase):
    """Takes what is written until `take` gives it away. It cannot seek, and tells how much was written in all."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        return self._written

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
