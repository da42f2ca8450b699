"""Text files of prompts: one a line, or blocks between lines of ``---``; never more in memory than a prompt."""

import io
from collections.abc import Iterator
from typing import IO

from tasks.conversation import MAX_PROMPT_CHARACTERS
from tasks.files.read.reading import Problem
from tasks.files.read.record import NUL, NUL_REMEDY, Notes, Record, Records
from tasks.files.read.source import Source

SEPARATOR = "---"
MAX_BLOCK = 2 * MAX_PROMPT_CHARACTERS  # as it stands in the file, white space around it included


def read_lines(source: Source, notes: Notes) -> Records:
    """A prompt a line, without white space around it; empty lines are left out."""
    with source.lines() as lines:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if text == SEPARATOR:
                reason = f"A line of {SEPARATOR} ends a prompt of several lines, but this file is read a prompt a line."
                yield number, Problem(number, reason, "Remove the line, or choose blocks as the format.")
            elif text:
                yield _stored(number, text, source)


def read_blocks(source: Source, notes: Notes) -> Records:
    """Prompts between lines of ``---``, without white space around them, each with the number of its first line."""
    with source.lines() as lines:
        for start, text in _blocks(lines):
            if len(text) >= MAX_BLOCK:
                reason = f"The prompt that begins here is longer than {MAX_PROMPT_CHARACTERS} characters."
                yield start, Problem(start, reason, f"Shorten it, or end it with a line of {SEPARATOR}.")
            elif text := text.strip():
                yield _stored(start, text, source)


def _blocks(lines: IO[str]) -> Iterator[tuple[int, str]]:
    """The beginning of every block, up to `MAX_BLOCK` characters."""
    start, block, length = 1, io.StringIO(), 0
    for number, line in enumerate(lines, 1):
        if line.strip() == SEPARATOR:
            yield start, block.getvalue()
            start, block, length = number + 1, io.StringIO(), 0
        elif length < MAX_BLOCK:
            block.write(line[: MAX_BLOCK - length])
            length += len(line)
    yield start, block.getvalue()


def _stored(number: int, text: str, source: Source) -> Record:
    if source.has_nul and "\x00" in text:
        return number, Problem(number, NUL, NUL_REMEDY)
    return number, text
