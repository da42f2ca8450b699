"""Excel workbooks: the first sheet with a header, a record a row."""

import datetime
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree.ElementTree import ParseError

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from tasks.errors import InvalidInput
from tasks.files.read.columns import header_problem, listed
from tasks.files.read.reading import Problem
from tasks.files.read.record import Notes, Records
from tasks.files.read.source import Source

MAX_UNPACKED = 2**30  # bytes of a workbook
MAX_STRINGS = 2**28  # bytes of its shared texts, which lie in memory all the time
STRINGS = "xl/sharedStrings.xml"
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    InvalidFileException,
    ParseError,
    KeyError,
    ValueError,
    OSError,
    EOFError,
    TypeError,
)


def read_xlsx(source: Source, notes: Notes) -> Records:
    """The records of a workbook; the number of a line is that of the row. A formula is a problem: it holds no text."""
    _refuse_bombs(source)
    try:
        book = openpyxl.load_workbook(source.stream, read_only=True)
    except BROKEN as error:
        raise _broken(source, error) from None
    try:
        yield from _records(book, notes)
    except BROKEN as error:
        raise _broken(source, error) from None
    finally:
        book.close()


def _broken(source: Source, error: Exception) -> InvalidInput:
    problem = f"{source.name} is a damaged workbook ({error}); open it in a spreadsheet and save it again."
    return InvalidInput(problem, "file")


def _refuse_bombs(source: Source) -> None:
    """A few kilobytes may unpack to gigabytes; what an archive says of its sizes is as far as it is unpacked."""
    with zipfile.ZipFile(source.stream) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    if sum(sizes.values()) > MAX_UNPACKED or sizes.get(STRINGS, 0) > MAX_STRINGS:
        problem = f"{source.name} is too large when it is unpacked; save the sheet with the prompts as CSV."
        raise InvalidInput(problem, "file")


def _records(book: Any, notes: Notes) -> Records:
    sheets = list(book.worksheets)
    for sheet in sheets:
        rows = _rows(sheet)
        line, header = next(rows, (0, ()))
        if not header:
            continue
        others = [other.title for other in sheets if other is not sheet]
        if others:
            notes.add(f"Only the sheet {sheet.title} is read; {listed(others)} is left aside.")
        names = [_text(cell.value).strip() for cell in header]
        if problem := header_problem(line, names):
            yield line, problem
            return
        for line, row in rows:
            yield line, _record(line, names, row)
        return


def _rows(sheet: Any) -> Iterator[tuple[int, Sequence[Any]]]:
    """Rows that are not empty, without the empty cells at their end."""
    sheet.reset_dimensions()  # what a file says of them is often wrong
    for line, row in enumerate(sheet.iter_rows(), 1):
        width = next((place for place in range(len(row), 0, -1) if row[place - 1].value is not None), 0)
        if width:
            yield line, row[:width]


def _record(line: int, names: list[str], row: Sequence[Any]) -> dict[str, Any] | Problem:
    if len(row) > len(names):
        reason = f"It has a value in {row[-1].coordinate}, but the header has only {len(names)} columns."
        return Problem(line, reason, "Give the column a name in the first row, or remove the value.")
    for cell in row:
        if cell.data_type == "f":
            reason = f"Cell {cell.coordinate} holds a formula."
            return Problem(line, reason, "Copy the column and paste it as values, then save the file again.")
        if cell.data_type == "e":
            return Problem(line, f"Cell {cell.coordinate} holds the error {cell.value}.", "Correct it.")
    return dict.fromkeys(names, "") | {name: _text(cell.value) for name, cell in zip(names, row, strict=False)}


def _text(value: Any) -> str:
    """A cell as a spreadsheet shows it, about."""
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).replace("\r\n", "\n")
