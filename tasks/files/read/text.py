"""Text files of prompts, read as a stream: never more of one in memory than a prompt."""

import io
from collections.abc import Iterator
from typing import IO

from tasks.conversation import MAX_PROMPT_CHARACTERS, NewPrompt, problem_of
from tasks.errors import InvalidInput

MAX_LINE_BYTES = 4 * MAX_PROMPT_CHARACTERS + 2  # UTF-8 takes at most 4 bytes a character
MAX_BLOCK_CHARACTERS = 2 * MAX_PROMPT_CHARACTERS  # as it stands in the file, white space around it included
SEPARATOR = "---"


def read_text(stream: IO[bytes], name: str) -> Iterator[NewPrompt]:
    """The prompts of a text file (UTF-8) called ``name``: one a line, or blocks between lines of ``---``.

    Blocks it is when such a line ends the first prompt, that is, comes within the longest prompt allowed. White space
    around a prompt and empty lines between prompts are left out. Raises `InvalidInput` with the number of the line.
    """
    lines = _lines(stream, name)
    first: list[tuple[int, str]] = []
    characters = 0
    for number, line in lines:
        first.append((number, line))
        characters += len(line)
        if line.strip() == SEPARATOR or characters > MAX_BLOCK_CHARACTERS:
            break
    in_blocks = bool(first) and first[-1][1].strip() == SEPARATOR
    numbered = _chained(first, lines)
    found = False
    for number, text in _blocks(numbered, name) if in_blocks else _single_lines(numbered, name):
        prompt = NewPrompt(text)
        if problem := problem_of(prompt):
            raise InvalidInput(f"{name}, line {number}: the prompt {problem}", "file")
        found = True
        yield prompt
    if not found:
        raise InvalidInput(f"{name} holds no prompt; write one a line.", "file")


def _lines(stream: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    """Numbered lines with their line ends."""
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
            problem = f"the line is longer than {MAX_PROMPT_CHARACTERS} characters, which is the limit of a prompt."
            raise InvalidInput(f"{name}, line {number}: {problem}", "file")
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 text (byte {error.start + 1} of the line); save the file as UTF-8 and send it again."
            raise InvalidInput(f"{name}, line {number}: {problem}", "file") from None


def _single_lines(lines: Iterator[tuple[int, str]], name: str) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        text = line.strip()
        if text == SEPARATOR:
            problem = f"a line of {SEPARATOR} ends a prompt of several lines, but the first such prompt would have more"
            limit = f"than {MAX_PROMPT_CHARACTERS} characters. Remove the line, or separate the prompts from the start."
            raise InvalidInput(f"{name}, line {number}: {problem} {limit}", "file")
        if text:
            yield number, text


def _blocks(lines: Iterator[tuple[int, str]], name: str) -> Iterator[tuple[int, str]]:
    """Blocks, each with the number of its first line."""
    start, block, characters = 1, io.StringIO(), 0
    for number, line in lines:
        if line.strip() == SEPARATOR:
            if text := block.getvalue().strip():
                yield start, text
            start, block, characters = number + 1, io.StringIO(), 0
            continue
        characters += len(line)
        if characters > MAX_BLOCK_CHARACTERS:
            problem = f"the prompt that begins here is longer than {MAX_PROMPT_CHARACTERS} characters."
            raise InvalidInput(f"{name}, line {start}: {problem}", "file")
        block.write(line.replace("\r\n", "\n"))
    if text := block.getvalue().strip():
        yield start, text


def _chained(first: list[tuple[int, str]], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield from first
    first.clear()
    yield from rest
