"""Thinking apart from the answer: what a model writes between two marks before it answers."""

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True)
class Marks:
    """What opens and closes a model's thinking."""

    opening: str
    closing: str


KNOWN_MARKS = (
    Marks("<think>", "</think>"),
    Marks("<thinking>", "</thinking>"),
    Marks("<reasoning>", "</reasoning>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
)


class _Place(Enum):
    BEFORE = auto()  # nothing but white space so far
    THINKING = auto()
    AFTER_MARK = auto()  # white space between thinking and answer belongs to neither
    ANSWER = auto()


class ThinkingSplitter:
    """Parts the text of one completion, as it comes, into thinking and answer. Marks belong to neither."""

    def __init__(self, marks: Marks, opened: bool):
        """``opened``: the prompt ends with the opening mark, so that the completion begins with thinking."""
        self.marks = marks
        self._place = _Place.THINKING if opened else _Place.BEFORE
        self._held = ""

    def push(self, text: str) -> tuple[str, str]:
        """Add text; returns the thinking and the answer that have become certain."""
        return self._advance(self._held + text, final=False)

    def finish(self) -> tuple[str, str]:
        """What is left when no text follows."""
        return self._advance(self._held, final=True)

    def _advance(self, text: str, final: bool) -> tuple[str, str]:
        thinking = answer = self._held = ""
        if self._place is _Place.BEFORE:
            begun = text.lstrip()
            if begun.startswith(self.marks.opening):
                self._place, text = _Place.THINKING, begun[len(self.marks.opening) :]
            elif not final and self.marks.opening.startswith(begun):
                self._held = text
                return "", ""
            else:
                self._place = _Place.ANSWER
        if self._place is _Place.THINKING:
            thinking, closed, rest = text.partition(self.marks.closing)
            if closed:
                self._place, text = _Place.AFTER_MARK, rest
            else:
                held = 0 if final else beginning_at_end(text, self.marks.closing)
                self._held = text[len(text) - held :]
                return text[: len(text) - held], ""
        if self._place is _Place.AFTER_MARK:
            text = text.lstrip()
            self._place = _Place.ANSWER if text else self._place
        answer = text
        return thinking, answer


def beginning_at_end(text: str, mark: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``mark``."""
    longest = min(len(mark) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if mark.startswith(text[-n:])), 0)
