"""Files of JSON objects, one a line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import orjson

from tasks.files.read.reading import Encoding, Problem
from tasks.files.read.record import NUL, NUL_REMEDY, Notes, Records, has_nul
from tasks.files.read.source import Source

MAX_LINE_BYTES = 2**20
BOM = b"\xef\xbb\xbf"
REMEDY = 'Write an object such as {"prompt": "…"} or {"messages": […]} on each line.'


def read_jsonl(source: Source, notes: Notes) -> Records:
    """The objects of a file; empty lines are left out."""
    with _byte_lines(source) as lines:
        for number, line in lines:
            if len(line) > MAX_LINE_BYTES:
                reason = f"The line is longer than {MAX_LINE_BYTES} bytes."
                yield number, Problem(number, reason, "Shorten it.")
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if line.strip():
                    yield number, Problem(number, f"The line is no JSON ({error.msg}, column {error.colno}).", REMEDY)
                continue
            if type(value) is not dict:
                yield number, Problem(number, "The line is no JSON object.", REMEDY)
            elif b"\\u0000" in line and has_nul(value):
                yield number, Problem(number, NUL, NUL_REMEDY)
            else:
                yield number, value


@contextmanager
def _byte_lines(source: Source) -> Iterator[Iterator[tuple[int, bytes]]]:
    """Numbered lines in UTF-8, of long ones a beginning that is too long."""
    if source.reading.encoding in (None, Encoding.UTF_8):
        source.stream.seek(0)
        if source.stream.read(len(BOM)) != BOM:
            source.stream.seek(0)
        yield enumerate(source.stream if source.long_line is None else _cut(source.stream), 1)
        return
    with source.lines() as text:
        yield enumerate((line.encode() for line in text), 1)


def _cut(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines, of long ones a beginning that is too long."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        whole = line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES + 1)
        yield whole
