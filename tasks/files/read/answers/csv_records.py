"""Rows of a table of text, by the names in its first row, in constant memory."""

import codecs
import csv
import io
from collections.abc import Iterator
from typing import IO

from tasks.errors import InvalidInput
from tasks.files.read.reading import Encoding, Separator

MAX_LINE_CHARACTERS = 2**22
MAX_VALUE_CHARACTERS = 2**22
PIECE_BYTES = 2**20

Row = dict[str, str | None]


def csv_records(
    stream: IO[bytes], name: str, encoding: Encoding | None = None, separator: Separator | None = None
) -> Iterator[tuple[int, Row]]:
    """Rows by the line on which each begins (from 1); an empty cell is None. Raises `InvalidInput` with the line.

    What is not told is guessed: the encoding from all bytes, the separator from the header.
    """
    text = io.TextIOWrapper(stream, encoding=_codec(encoding or _encoding_of(stream)), newline="")
    try:
        yield from _rows(_Lines(text, name), name, separator)
    finally:
        if not stream.closed:
            text.detach()  # the stream is its owner's to close


class _Lines:
    """Lines of a text with their ends, none too long; ``number`` is that of the last one given."""

    def __init__(self, text: io.TextIOWrapper, name: str):
        self.text, self.name, self.number = text, name, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number += 1
        where = f"{self.name}, line {self.number}"
        try:
            line = self.text.readline(MAX_LINE_CHARACTERS + 1)
        except UnicodeError:
            raise InvalidInput(f"{where} or near it is not text; save the file as UTF-8.", "file") from None
        if not line:
            raise StopIteration
        if len(line) > MAX_LINE_CHARACTERS:
            raise InvalidInput(f"{where} is longer than {MAX_LINE_CHARACTERS} characters; shorten it.", "file")
        if "\x00" in line:
            raise InvalidInput(f"{where} contains a NUL character; remove it.", "file")
        return line


def _rows(lines: _Lines, name: str, separator: Separator | None) -> Iterator[tuple[int, Row]]:
    head = next((line for line in lines if line.strip()), "")
    delimiter = separator or max(Separator, key=lambda one: len(next(csv.reader([head], delimiter=one))))
    csv.field_size_limit(MAX_VALUE_CHARACTERS)
    start, columns = lines.number, None
    try:
        for values in csv.reader(_again(head, lines), delimiter=delimiter, strict=True):
            if columns is None:
                columns = _header(values, name)
            elif any(values):
                if len(values) > len(columns):
                    problem = f"has {len(values)} values, but there are {len(columns)} columns; put quotes around text"
                    raise InvalidInput(f"{name}, line {start} {problem} that contains {delimiter!r}.", "file")
                row = dict.fromkeys(columns) | {key: value or None for key, value in zip(columns, values, strict=False)}
                row.pop("", None)
                yield start, row
            start = lines.number + 1
    except csv.Error as error:
        problem = f"cannot be read as a row of a table: {error}; look at its quotes"
        raise InvalidInput(f"{name}, line {start} {problem}.", "file") from None


def _header(values: list[str], name: str) -> list[str]:
    columns = [value.strip() for value in values]
    named = [column for column in columns if column]
    if len(set(named)) < len(named):
        twice = next(column for column in named if named.count(column) > 1)
        raise InvalidInput(f"{name} has the column {twice} twice; rename one of them.", "file")
    return columns


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _encoding_of(stream: IO[bytes]) -> Encoding:
    """By its first bytes, else UTF-8 where every byte of the file is that, else GB18030, as Excel writes in China."""
    stream.seek(0)
    piece = stream.read(PIECE_BYTES)
    if piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        stream.seek(0)
        return Encoding.UTF_16
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while piece:
            decoder.decode(piece)
            piece = stream.read(PIECE_BYTES)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return Encoding.GB18030
    else:
        return Encoding.UTF_8
    finally:
        stream.seek(0)


def _codec(encoding: Encoding) -> str:
    return "utf-8-sig" if encoding is Encoding.UTF_8 else encoding.value
