"""Rows of a table of text, by the names in its first row, in constant memory."""

from collections.abc import Iterator, Mapping
from typing import IO

from tasks.errors import InvalidInput
from tasks.files.read.csv import read_csv
from tasks.files.read.opening import opened
from tasks.files.read.reading import Encoding, FileFormat, Problem, Reading, Separator
from tasks.files.read.record import Notes

Row = dict[str, str | None]


def csv_records(
    stream: IO[bytes], name: str, encoding: Encoding | None = None, separator: Separator | None = None
) -> Iterator[tuple[int, Row]]:
    """Rows by the line on which each begins (from 1); an empty cell is None. Raises `InvalidInput` with the line.

    What is not told is guessed: the encoding from all bytes, the separator from the header.
    """
    reading = Reading(format=FileFormat.CSV, encoding=encoding, separator=separator)
    with opened(stream, name, reading) as source:
        for line, row in read_csv(source, Notes()):
            if isinstance(row, Problem):
                raise InvalidInput(f"{name}, line {line}: {row.reason} {row.remedy}", "file")
            if isinstance(row, Mapping):
                yield line, {column: cell or None for column, cell in row.items() if column}
