"""The text of one growing completion: incremental decoding and stop strings."""

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\ufffd"


class GrowingText:
    """Decodes tokens as they come and holds back what may still change: half characters, the start of a stop string.

    ``sent`` is what was handed out so far; ``stopped`` tells that a stop string was met, which is not part of the text.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]):
        self.tokenizer = tokenizer
        self.stop = stop
        self.tokens: list[int] = []
        self.sent = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token; returns the text that has become certain, which may be empty."""
        self.tokens.append(token)
        text = self._decode().rstrip(UNFINISHED)
        ends = [at for at in (text.find(stop) for stop in self.stop) if at >= 0]
        if ends:
            self.stopped = True
            return self._advance(text[: min(ends)])
        return self._advance(text[: len(text) - self._held_back(text)])

    def finish(self) -> str:
        """The rest of the text, when no token follows."""
        return "" if self.stopped else self._advance(self._decode().replace(UNFINISHED, ""))

    def _decode(self) -> str:
        return str(self.tokenizer.decode(self.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _held_back(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop string."""
        longest = max((len(stop) for stop in self.stop), default=1) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self.stop)), 0)

    def _advance(self, text: str) -> str:
        added = text[len(self.sent) :]
        self.sent += added
        return added
