"""Tables as text: a header, then a record a row; cells in quotes may hold separators and line ends."""

import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from tasks.files.read.columns import header_problem
from tasks.files.read.reading import Problem, Separator
from tasks.files.read.record import NUL, NUL_REMEDY, Notes, Records
from tasks.files.read.source import Source

UNCLOSED = "The quote that opens here is never closed, so all that follows would be one cell."
UNCLOSED_REMEDY = 'Close it, or write "" for a quote that is part of a cell.'


class Parser(Protocol):
    """What `csv.reader` gives."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...


Rows = Iterator[tuple[int, list[str] | Problem]]


def read_csv(source: Source, notes: Notes) -> Records:
    """The records of a table, by the names in its header; each has the number of the line that it begins in."""
    with source.lines() as lines:
        reader = csv.reader(lines, delimiter=_separator(source), strict=True)
        rows = _rows(source, reader)
        for line, row in rows:
            if isinstance(row, list) and "".join(row).strip().lower() in ("sep=", *(f"sep={one}" for one in Separator)):
                continue  # Excel's way to name the separator
            if isinstance(row, Problem):
                yield line, replace(row, final=True)
            elif problem := header_problem(line, row):
                yield line, problem
            else:
                yield from _records(rows, [name.strip() for name in row])
            return


def _records(rows: Rows, header: list[str]) -> Records:
    width = len(header)
    for line, row in rows:
        if isinstance(row, Problem):
            yield line, row
        elif len(row) == width:
            yield line, dict(zip(header, row, strict=True))
        elif len(row) < width:
            yield line, dict(zip(header, row + [""] * (width - len(row)), strict=True))
        elif not any(row[width:]):
            yield line, dict(zip(header, row[:width], strict=True))
        else:
            reason = f"It has {len(row)} cells, but the header has {width}."
            yield line, Problem(line, reason, 'Put a cell that holds the separator in quotes ("…").')


def _rows(source: Source, reader: Parser) -> Rows:
    """Rows that are not empty, or what is wrong with them."""
    start = reader.line_num + 1
    while True:
        try:
            for row in reader:
                line, start = start, reader.line_num + 1
                if not any(row):
                    continue
                if source.has_nul and "\x00" in "".join(row):
                    yield line, Problem(line, NUL, NUL_REMEDY)
                else:
                    yield line, row
            return
        except csv.Error as error:
            problem = _problem(source, str(error), start, reader.line_num)
            start = reader.line_num + 1
        yield problem.line, problem
        if problem.final:
            return


def _problem(source: Source, error: str, start: int, end: int) -> Problem:
    """What is wrong with the record in lines ``start`` to ``end``, by what `csv` says."""
    if "expected after" in error:
        reason = "A cell goes on after the quote that closes it."
        if end > start:
            reason = f"A cell in quotes that begins here goes on in line {end} after the quote that closes it."
        return Problem(start, reason, 'Write "" for a quote that is part of a cell.')
    if "field limit" in error and start == end:
        return Problem(start, f"A cell is longer than {csv.field_size_limit()} characters.", "Shorten it.")
    with source.lines() as lines:
        line = start + _opening(itertools.islice(lines, start - 1, end), _separator(source))
    return Problem(line, UNCLOSED, UNCLOSED_REMEDY, final=True)


def _opening(lines: Iterable[str], separator: Separator) -> int:
    """In which of the lines of a record (from 0) the quote opens that none closes."""
    opened, in_quotes, before = 0, False, separator.value
    for number, line in enumerate(lines):
        for character in line:
            if character == '"' and (in_quotes or before in (separator, "\n", '"')):
                in_quotes = not in_quotes
                opened = number if in_quotes and before != '"' else opened
            before = character
    return opened


def _separator(source: Source) -> Separator:
    return source.reading.separator or Separator.COMMA
