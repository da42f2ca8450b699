"""Which format a file has: its content says it first, its name where the content leaves it open."""

import csv
import re
import zipfile
from collections.abc import Mapping
from pathlib import PurePath
from typing import IO

from tasks.errors import InvalidInput
from tasks.files.read.columns import is_known, is_prompt
from tasks.files.read.promptfoo_signs import is_promptfoo, is_promptfoo_config
from tasks.files.read.reading import FileFormat, Separator

BLOCK_LIMIT = 64_000  # characters before the first line of ---, which is twice the longest prompt
SAMPLE_RECORDS = 20
MAX_HEADER_CELL = 60

BY_NAME = {
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.CSV,
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".json": FileFormat.JSON,
    ".yaml": FileFormat.PROMPTFOO,
    ".yml": FileFormat.PROMPTFOO,
}
BINARY: Mapping[bytes, str] = {
    b"\x1f\x8b": "a gzip archive; unpack it and send what is in it",
    b"BZh": "a bzip2 archive; unpack it and send what is in it",
    b"\xfd7zXZ": "an xz archive; unpack it and send what is in it",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it and send what is in it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it and send what is in it",
    b"Rar!": "a RAR archive; unpack it and send what is in it",
    b"\xd0\xcf\x11\xe0": "a file of an old Office (.xls, .doc); save it as .xlsx or as CSV",
    b"%PDF": "a PDF; copy its text into a text file or a table",
    b"\x89PNG": "an image; send text or a table",
    b"\xff\xd8\xff": "an image; send text or a table",
    b"GIF8": "an image; send text or a table",
    b"RIFF": "an image, a sound or a video; send text or a table",
    b"SQLite format 3": "a database; save the table with the prompts as CSV",
    b"GGUF": "a model; add it with ./touchstone models add",
    b"\x7fELF": "a program; send text or a table",
}
JSON_OBJECT = re.compile(r'\s*\{\s*"')
JSON_LIST = re.compile(r'\s*\[\s*(\{\s*["}]|"|\])')
BLOCK_END = re.compile(r"^[^\S\n]*---[^\S\n]*$", re.MULTILINE)


def binary_format(stream: IO[bytes], name: str) -> FileFormat | None:
    """XLSX or Parquet, or none for a file that may be text.

    Raises `InvalidInput` for an empty file and one of another kind.
    """
    stream.seek(0)
    beginning = stream.read(16)
    if not beginning:
        raise InvalidInput(f"{name} is empty; choose another file.", "file")
    if beginning.startswith(b"PAR1"):
        return FileFormat.PARQUET
    if beginning.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if _is_workbook(stream):
            return FileFormat.XLSX
        raise InvalidInput(f"{name} is a ZIP archive and no .xlsx; unpack it and send what is in it.", "file")
    kind = next((kind for magic, kind in BINARY.items() if beginning.startswith(magic)), None)
    if kind:
        raise InvalidInput(f"{name} is {kind}.", "file")
    return None


def _is_workbook(stream: IO[bytes]) -> bool:
    try:
        with zipfile.ZipFile(stream) as archive:
            return "xl/workbook.xml" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def text_format(head: str, name: str) -> FileFormat:
    """The format of a text that begins with ``head``. What looks like a table is never taken for lines."""
    suffix = PurePath(name.lower()).suffix
    if is_promptfoo_config(head.encode()):
        return FileFormat.PROMPTFOO
    if JSON_LIST.match(head):
        return FileFormat.JSON
    if JSON_OBJECT.match(head):
        return _of_object(head, suffix)
    if any(is_promptfoo(next(iter(_records(head, separator)), [])) for separator in Separator):
        return FileFormat.PROMPTFOO
    if suffix in BY_NAME:
        return BY_NAME[suffix]
    if table_separator(head):
        return FileFormat.CSV
    return lines_or_blocks(head)


def lines_or_blocks(head: str) -> FileFormat:
    """Blocks where a line of ``---`` ends the first prompt, that is, comes within the longest prompt allowed."""
    return FileFormat.BLOCKS if BLOCK_END.search(head[:BLOCK_LIMIT]) else FileFormat.LINES


def _of_object(head: str, suffix: str) -> FileFormat:
    """JSONL where the first line is a whole object or the second begins another, else JSON."""
    first, *others = [line for line in head.split("\n") if line.strip()][:2]
    if others and others[0].startswith("{"):
        return FileFormat.JSONL
    if others or suffix == ".json":
        return BY_NAME.get(suffix, FileFormat.JSON) if not first.rstrip().endswith("}") else FileFormat.JSONL
    return FileFormat.JSONL


def table_separator(head: str) -> Separator | None:
    """The separator of what looks like a table.

    That is a header with a known column, or records of as many cells each with quotes around some or tabs between.
    """
    first = head.lstrip("\n").split("\n", 1)[0].strip()
    if first.lower().startswith("sep=") and first[4:] in tuple(Separator):
        return Separator(first[4:])
    for separator in Separator:
        records = _records(head, separator)
        widths = [len(record) for record in records]
        if not records or (widths[0] < 2 and not is_prompt(records[0][0])):
            continue
        in_quotes = re.search(f'^"|{separator}"', head, re.MULTILINE)
        if widths[0] < 2:
            if in_quotes:
                return separator
        elif any(map(is_prompt, records[0])) and max(map(len, records[0])) <= MAX_HEADER_CELL:
            if sum(width > 1 for width in widths) * 2 >= len(widths):
                return separator
        elif len(records) > 1 and len(set(widths)) == 1 and (in_quotes or separator is Separator.TAB):
            return separator
    return None


def best_separator(head: str, name: str) -> Separator:
    """The separator of a file that is a table: the one that gives the most known columns, else the most columns."""
    if found := table_separator(head):
        return found
    usual = Separator.TAB if name.lower().endswith(".tsv") else Separator.COMMA

    def rank(separator: Separator) -> tuple[int, int, bool]:
        header = next(iter(_records(head, separator)), [])
        return sum(map(is_known, header)), len(header), separator is usual

    return max(Separator, key=rank)


def _records(head: str, separator: Separator) -> list[list[str]]:
    """The first records that are not empty, without one that the end of ``head`` may have cut."""
    lines = head.split("\n")
    whole = lines if len(lines) < 2 else lines[:-1] if lines[-1] else lines
    found: list[list[str]] = []
    reader = csv.reader((line + "\n" for line in whole), delimiter=separator)
    try:
        for row in reader:
            found += [row] if any(row) else []
            if len(found) == SAMPLE_RECORDS:
                break
    except csv.Error:
        pass
    return found
