"""Members of a zip file, read one at a time: none larger than it says, and none that is too large."""

import importlib
import zipfile
import zlib
from types import ModuleType
from typing import IO, Any

from tasks.errors import InvalidInput

MAX_MEMBERS = 200_000
MAX_MEMBER_BYTES = 2**27
MAX_BYTES = 2**33  # of all members together
ZSTANDARD = 93
LOCAL_HEADER_BYTES = 30
ENCRYPTED = 1  # a bit of a member's flags
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)


class Archive:
    """A zip file called ``name``. Raises `InvalidInput` where it is broken or would be too large unpacked."""

    def __init__(self, stream: IO[bytes], name: str):
        self.stream, self.name = stream, name
        try:
            self.file = zipfile.ZipFile(stream)
        except BROKEN:
            raise InvalidInput(f"{name} is a broken zip file; copy it again.", "file") from None
        self.members = {member.filename: member for member in self.file.infolist()}
        largest = max((member.file_size for member in self.members.values()), default=0)
        together = sum(member.file_size for member in self.members.values())
        if len(self.members) > MAX_MEMBERS or largest > MAX_MEMBER_BYTES or together > MAX_BYTES:
            problem = f"has {len(self.members)} members of {together} bytes unpacked, the largest of {largest}"
            limits = f"{MAX_MEMBERS} members, {MAX_BYTES} bytes and {MAX_MEMBER_BYTES} for one are the limits"
            raise InvalidInput(f"{name} {problem}; {limits}. Split it.", "file")

    def read(self, member: str) -> bytes:
        """The bytes of a member. Raises `InvalidInput`."""
        found = self.members[member]
        if found.flag_bits & ENCRYPTED:
            raise InvalidInput(f"{self.name}: {member} is encrypted; write the archive without a password.", "file")
        try:
            unpacked = self._zstandard(found) if found.compress_type == ZSTANDARD else self._member(found)
        except NotImplementedError:
            problem = "is packed in a way that is not known; pack it anew"
            raise InvalidInput(f"{self.name}: {member} {problem}.", "file") from None
        except BROKEN:
            raise InvalidInput(f"{self.name}: {member} is broken; copy the file again.", "file") from None
        if len(unpacked) != found.file_size or zlib.crc32(unpacked) != found.CRC:
            raise InvalidInput(f"{self.name}: {member} is not as large as it says; copy the file again.", "file")
        return unpacked

    def _member(self, member: zipfile.ZipInfo) -> bytes:
        with self.file.open(member) as file:
            return file.read(member.file_size)  # without a number, more would be unpacked of one that is larger

    def _zstandard(self, member: zipfile.ZipInfo) -> bytes:
        """What `zipfile` cannot unpack before Python 3.14."""
        arrow = self._arrow()
        self.stream.seek(member.header_offset)
        header = self.stream.read(LOCAL_HEADER_BYTES)
        self.stream.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
        packed: Any = arrow.BufferReader(self.stream.read(member.compress_size))
        unpacked: bytes = arrow.CompressedInputStream(packed, "zstd").read(member.file_size)
        return unpacked

    def _arrow(self) -> ModuleType:
        try:
            return importlib.import_module("pyarrow")
        except ImportError:
            problem = f"{self.name} is packed with Zstandard, which needs pyarrow: install it, or write a log of JSON."
            raise InvalidInput(problem, "file") from None
