"""JSON that is not a line a record: a list of records, or an object with one; read in constant memory."""

import json
import re
from typing import IO, Any

import orjson

from tasks.files.read.reading import Problem
from tasks.files.read.record import NUL, NUL_REMEDY, Notes, Record, Records, has_nul
from tasks.files.read.source import PIECE_BYTES, Source

MAX_VALUE = 2**22  # characters of one record
SPACE = re.compile(r"\s*")
OBJECTS = re.compile(r"\[\s*\{")
OF_A_RECORD = frozenset(("messages", "conversations", "conversation", "turns", "input", "checks", "choices", "tags"))
REMEDY = "Correct the file, or write one object a line (JSONL)."


class Broken(Exception):
    """The file is no JSON from here on."""


class Window:
    """A part of a text that moves on over it, a value at a time. ``line`` is that of the next character."""

    def __init__(self, text: IO[str]):
        self._text, self._held, self._place, self.line = text, "", 0, 1
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            self._move(SPACE.match(self._held, self._place).end())  # type: ignore[union-attr]
            if self._place < len(self._held):
                return self._held[self._place]
            if not self._more():
                return ""

    def begins(self, pattern: re.Pattern[str]) -> bool:
        """Whether what follows matches, within a piece of the text."""
        self.peek()
        self._more()
        return pattern.match(self._held, self._place) is not None

    def take(self, wanted: str) -> None:
        """Move over the character ``wanted``. Raises `Broken` where another comes."""
        if (found := self.peek()) != wanted:
            raise Broken(f"{wanted} is missing before {found}" if found else f"it ends where {wanted} is missing")
        self._move(self._place + 1)

    def value(self) -> tuple[int, str, Any]:
        """The next value: its line, as it is written, and what it is. Raises `Broken`."""
        if not self.peek():
            raise Broken("it ends in the middle")
        line, start = self.line, self._place
        while True:
            try:
                value, end = self._decode(self._held, start)
                break
            except RecursionError:
                raise Broken("it is nested too deeply") from None
            except ValueError as error:
                if len(self._held) - start > MAX_VALUE:
                    raise Broken(f"a value is longer than {MAX_VALUE} characters, or never ends") from None
                if not self._more():
                    raise Broken(str(error)) from None
                start = self._place
        written = self._held[start:end]
        self._move(end)
        return line, written, value

    def _move(self, place: int) -> None:
        self.line += self._held.count("\n", self._place, place)
        self._place = place

    def _more(self) -> bool:
        piece = self._text.read(PIECE_BYTES)
        self._held, self._place = self._held[self._place :] + piece, 0
        return bool(piece)


def read_json(source: Source, notes: Notes) -> Records:
    """The records of a list, of the first list of objects in an object, or the object itself if there is none."""
    with source.text() as text:
        window = Window(text)
        try:
            if window.peek() == "[":
                yield from _items(window)
            elif window.peek() == "{":
                yield from _of_object(window, notes)
            else:
                raise Broken("neither a list nor an object")
            if window.peek():
                raise Broken("something follows after its end")
        except Broken as error:
            yield window.line, Problem(window.line, f"The file is no JSON ({error}).", REMEDY, final=True)


def _items(window: Window) -> Records:
    window.take("[")
    if window.peek() == "]":
        return window.take("]")
    while True:
        yield _record(*window.value())
        if window.peek() != ",":
            return window.take("]")
        window.take(",")


def _of_object(window: Window, notes: Notes) -> Records:
    own: dict[str, Any] = {}
    line, found = window.line, False
    window.take("{")
    while window.peek() == '"':
        _, _, key = window.value()
        window.take(":")
        if not found and key not in OF_A_RECORD and window.begins(OBJECTS):
            for record in _items(window):
                found = found or not isinstance(record[1], Problem)
                yield record
        else:
            own[key] = window.value()[2]
        if window.peek() == ",":
            window.take(",")
    window.take("}")
    if not found:
        yield _record(line, json.dumps(own), own)
    elif own:
        notes.add(f"Only one list of the file is read; {', '.join(own)} is left aside.")


def _record(line: int, written: str, value: Any) -> Record:
    try:
        value = orjson.loads(written)  # stricter: no NaN, no half surrogate pair
    except orjson.JSONDecodeError as error:
        return line, Problem(line, f"The record is no JSON ({error.msg}).", "Correct it.")
    if isinstance(value, dict | str):
        return line, Problem(line, NUL, NUL_REMEDY) if "\\u0000" in written and has_nul(value) else value
    return line, Problem(line, "The record is neither an object nor a text.", 'Write it as {"prompt": "…"}.')
