"""A file that is about to be read: looked at once as a whole, so that how its bytes are characters is certain."""

import codecs
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from tasks.errors import InvalidInput
from tasks.files.read.reading import Encoding, Reading

PIECE_BYTES = 2**20
LOOK_BYTES = 2**18
MAX_LINE = 2**20  # characters; of more, no cell and no prompt would be taken anyway
CERTAIN_CHARACTERS = 6  # beyond ASCII that are right by UTF-8: text of another encoding does not go so far by chance


@dataclass(frozen=True)
class Source:
    """A seekable file and how it is read. The rest is known of text alone.

    ``codec`` is Python's name of the encoding, ``long_line`` the first line that is longer than `MAX_LINE` characters.
    """

    stream: IO[bytes]
    name: str
    reading: Reading
    guessed: tuple[str, ...] = ()
    codec: str = "utf-8-sig"
    has_nul: bool = False
    long_line: int | None = None

    @contextmanager
    def text(self) -> Iterator[io.TextIOWrapper]:
        """All of the file as text, with line ends of one kind."""
        self.stream.seek(0)
        wrapper = io.TextIOWrapper(self.stream, self.codec, newline=None)
        try:
            yield wrapper
        finally:
            wrapper.detach()

    @contextmanager
    def lines(self) -> Iterator[io.TextIOWrapper]:
        """The same, to be read line by line. Raises `InvalidInput` where a line would not fit into memory."""
        if self.long_line is not None:
            problem = f"the line is longer than {MAX_LINE} characters; shorten it, or part it into lines."
            raise InvalidInput(f"{self.name}, line {self.long_line}: {problem}", "file")
        with self.text() as text:
            yield text


@contextmanager
def seekable(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """``stream`` itself, or a copy on the disk of one that comes over the network."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy, PIECE_BYTES)
        copy.seek(0)
        yield copy


@dataclass(frozen=True)
class Survey:
    """What all of a text file was looked at for."""

    codec: str
    has_nul: bool
    long_line: int | None


class Undecodable(Exception):
    """Bytes that are no characters of an encoding: in which line, and how many beyond ASCII there are before them."""

    def __init__(self, line: int, characters: int, at_end: bool):
        super().__init__(line)
        self.line, self.characters, self.at_end = line, characters, at_end


def survey(stream: IO[bytes], name: str, encoding: Encoding | None) -> tuple[Encoding, Survey]:
    """The encoding of a text file, by its first bytes or else by what all of it can be.

    Raises `InvalidInput` where it is none, or not the one that is asked for.
    """
    stream.seek(0)
    beginning = stream.read(4096)
    if encoding is None and beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = Encoding.UTF_16
    elif encoding is None and beginning.startswith(codecs.BOM_UTF8):
        encoding = Encoding.UTF_8
    if encoding is None:
        encoding, found = _guessed(stream, name)
        if found.has_nul and _seems_utf_16(beginning):
            problem = "has a NUL byte beside each letter, as UTF-16 has"
            raise InvalidInput(f"{name} {problem}; choose utf-16 as its encoding, or save it as UTF-8.", "file")
        return encoding, found
    try:
        return encoding, _look_through(stream, _codec(encoding, beginning))
    except Undecodable as error:
        raise _not_text(name, encoding, error) from None


def _guessed(stream: IO[bytes], name: str) -> tuple[Encoding, Survey]:
    try:
        return Encoding.UTF_8, _look_through(stream, _codec(Encoding.UTF_8))
    except Undecodable as error:
        failed = error
    if failed.characters >= CERTAIN_CHARACTERS or (failed.at_end and failed.characters):
        raise _not_text(name, Encoding.UTF_8, failed)
    try:
        return Encoding.GB18030, _look_through(stream, _codec(Encoding.GB18030))
    except Undecodable as error:
        if error.line >= failed.line:
            raise _not_text(name, Encoding.GB18030, error, " nor UTF-8") from None
        raise _not_text(name, Encoding.UTF_8, failed, " nor GB18030") from None


def _not_text(name: str, encoding: Encoding, error: Undecodable, other: str = "") -> InvalidInput:
    what = "ends in the middle of a character" if error.at_end else f"not {encoding.value.upper()} text{other}"
    remedy = "choose its encoding, or save the file as UTF-8 and send it again."
    return InvalidInput(f"{name}, line {error.line}: {what}; {remedy}", "file")


def _codec(encoding: Encoding, beginning: bytes = b"") -> str:
    if encoding is Encoding.UTF_8:
        return "utf-8-sig"
    if encoding is Encoding.UTF_16 and not beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16-be" if beginning[:1] == b"\x00" else "utf-16-le"
    return encoding.value


def _look_through(stream: IO[bytes], codec: str) -> Survey:
    """Decode all of a file. Raises `Undecodable`."""
    decoder = codecs.getincrementaldecoder(codec)()
    stream.seek(0)
    line, length, has_nul, long_line, characters = 1, 0, False, None, 0
    while True:
        piece = stream.read(PIECE_BYTES)
        try:
            text = decoder.decode(piece, not piece)
        except UnicodeDecodeError as error:
            before = error.object[: error.start]
            beyond = sum(1 for character in before.decode(codec, "ignore") if character > "\x7f")
            at_end = not piece or (error.end >= len(error.object) and not stream.read(1))
            raise Undecodable(line + before.count(b"\n"), characters + beyond, at_end) from None
        if not piece:
            return Survey(codec, has_nul, long_line)
        has_nul = has_nul or "\x00" in text
        characters += 0 if text.isascii() else CERTAIN_CHARACTERS
        if "\n" not in text:
            text = text.replace("\r", "\n")  # of an old Mac
        first = text.find("\n")
        length += len(text) if first < 0 else first
        if length > MAX_LINE and long_line is None:
            long_line = line
        if first >= 0:
            line += text.count("\n")
            length = len(text) - 1 - text.rfind("\n")


def _seems_utf_16(beginning: bytes) -> bool:
    halves = beginning[::2], beginning[1::2]
    return len(beginning) >= 16 and any(half.count(0) * 4 > len(half) for half in halves)
