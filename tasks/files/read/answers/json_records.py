"""Objects of JSON: one a line, in constant memory, or one document that is an array or an object."""

import json
import os
import re
from collections.abc import Iterator
from typing import IO, Any

import orjson

from tasks.errors import InvalidInput
from tasks.files.read.answers.formats import Record

MAX_LINE_BYTES = 2**23
MAX_DOCUMENT_BYTES = 2**27
BOM = b"\xef\xbb\xbf"
NOT_FINITE = re.compile(rb"\b(NaN|Infinity)\b")  # Python writes these, though JSON has none


def json_records(stream: IO[bytes], name: str) -> Iterator[tuple[int, Record]]:
    """Records by their line, or by their place in the document's array (from 1). Raises `InvalidInput`."""
    beginning = _first_line(stream)
    stream.seek(0)
    return _document(stream, name) if _is_document(beginning) else _lines(stream, name)


def parsed(raw: bytes) -> Any:
    """What JSON says. Raises `InvalidInput` with the place of what is wrong, as the end of a sentence."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if NOT_FINITE.search(raw):
            try:
                return json.loads(raw)
            except (ValueError, RecursionError):
                pass  # told as what the first reader found
        place = f"line {error.lineno}, character {error.colno}" if error.lineno > 1 else f"character {error.colno}"
        raise InvalidInput(f"is no valid JSON at {place}: {error.msg}.", "file") from None


def _first_line(stream: IO[bytes]) -> bytes:
    while line := stream.readline(MAX_LINE_BYTES):
        if text := line.removeprefix(BOM).strip():
            return text
    return b""


def _is_document(beginning: bytes) -> bool:
    """An array, or an object whose end is on a later line."""
    return beginning.startswith(b"[") or not beginning.endswith(b"}")


def _lines(stream: IO[bytes], name: str) -> Iterator[tuple[int, Record]]:
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise InvalidInput(f"{name}, line {number} is longer than {MAX_LINE_BYTES} bytes; shorten it.", "file")
        line = raw.removeprefix(BOM).strip() if number == 1 else raw.strip()
        if line:
            yield number, _object(line, f"{name}, line {number}")


def _document(stream: IO[bytes], name: str) -> Iterator[tuple[int, Record]]:
    size = stream.seek(0, os.SEEK_END)
    if size > MAX_DOCUMENT_BYTES:
        problem = f"is one JSON document of {size} bytes, which is read as a whole up to {MAX_DOCUMENT_BYTES}"
        raise InvalidInput(f"{name} {problem}; write an object on each line instead.", "file")
    stream.seek(0)
    try:
        value = parsed(stream.read().removeprefix(BOM))
    except InvalidInput as error:
        raise InvalidInput(f"{name} {error.message}", "file") from None
    for number, item in enumerate(value if isinstance(value, list) else [value], 1):
        if not isinstance(item, dict):
            raise InvalidInput(f"{name}, record {number} is no JSON object; make it one.", "file")
        yield number, item


def _object(line: bytes, where: str) -> Record:
    try:
        value = parsed(line)
    except InvalidInput as error:
        raise InvalidInput(f"{where} {error.message}", "file") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} is no JSON object; write one on each line.", "file")
    return value
