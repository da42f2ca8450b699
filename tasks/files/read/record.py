"""What a format makes of a file: records with the number of their line, and remarks on what is left aside."""

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.conversation import NewPrompt
from tasks.files.read.reading import Problem

# The line (from 1), and an object with keys, a text, a prompt that is complete, or what is wrong with it. No text of a
# record has a NUL character or half a surrogate pair: each format sees to that.
Said = Mapping[str, Any] | str | NewPrompt
Record = tuple[int, Said | Problem]
Records = Iterator[Record]

NUL = "It has a NUL character."
NUL_REMEDY = "Remove it, or choose utf-16 as the encoding if the file is that."
MAX_NOTES = 50


class Unfit(Exception):
    """A record that gives no prompt: why, and what to do about it, both whole sentences."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy

    @classmethod
    def of_message(cls, message: str) -> "Unfit":
        """From the message of an `InvalidInput`, whose remedy stands behind a semicolon."""
        reason, _, remedy = message.partition("; ")
        remedy = remedy or "correct it."
        return cls(reason.rstrip(".") + ".", remedy[0].upper() + remedy[1:])


class NoColumn(Unfit):
    """A record has no column for what is wanted, and so has no record of the same table."""


class Notes:
    """Remarks on a file, each said once, in the order in which they came up."""

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}

    def add(self, note: str) -> None:
        if len(self._notes) < MAX_NOTES:
            self._notes[note] = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._notes)


def has_nul(value: Any) -> bool:
    """Whether a JSON value has a NUL character in any text or key of it."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, Mapping):
        return any(has_nul(key) or has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(has_nul, value))
