"""Tokens of one completion to text, as they come: never half a character, never the start of a stop string."""

import re
from collections.abc import Sequence
from typing import Any

from tokenizers.models import WordPiece

REPLACEMENT = "\ufffd"
LONGEST_CHARACTER = 4  # bytes of UTF-8, so tokens too, if each is a byte
_WIDE = "\u2e80-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
_SPACE_BY_WIDE = re.compile(f"(?<=[{_WIDE}]) +| +(?=[{_WIDE}])")


class Detokenizer:
    """Turns token ids into text that can be shown at once.

    ``text`` is everything handed out so far; ``stopped`` tells that a stop string was met, which is not part of it.
    What a tokenizer cannot decode to a character is left out.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), singles: dict[int, str] | None = None):
        """``singles`` are texts of single tokens, which all that use the same tokenizer may share."""
        self._tokenizer = tokenizer
        self._singles = {} if singles is None else singles
        self._stop = tuple(stop)
        self._spaced = is_spaced(tokenizer)
        self._window: list[int] = []
        self._known = 0
        self._known_text = ""
        self._held = ""
        self._parts: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def push(self, token: int) -> str:
        """Add a token; returns the text that has become certain, which may be empty."""
        self._window.append(token)
        whole = self._decode(self._window)
        if not whole.endswith(REPLACEMENT):
            return self._release(self._advance(whole), final=False)
        if len(self._window) - self._known < LONGEST_CHARACTER:
            return ""
        # The oldest of so many tokens that end in no character cannot belong to the one that may be on its way.
        end = len(self._window) - LONGEST_CHARACTER + 1
        self._window, late = self._window[:end], self._window[end:]
        added = self._advance(self._decode(self._window))
        self._window += late
        return self._release(added, final=False)

    def hold(self, token: int) -> None:
        """Add a token whose text nobody asks for before `finish`."""
        self._window.append(token)

    def finish(self) -> str:
        """What is left when no token follows."""
        return "" if self.stopped else self._release(self._advance(self._decode(self._window)), final=True)

    def _advance(self, whole: str) -> str:
        """The part of the window's text that is new. The newest tokens stay in the window as context for the next."""
        added = whole[len(self._known_text) :]
        if added:
            # A tokenizer that marks words by a leading space drops it from the first token it is given: the window
            # must begin with a token that has shown its text already.
            self._window = self._window[self._known :]
            self._known_text = self._decode_known()
        else:
            self._known_text = whole
        self._known = len(self._window)
        return added.replace(REPLACEMENT, "")

    def _decode_known(self) -> str:
        if len(self._window) != 1:
            return self._decode(self._window)
        token = self._window[0]
        if token not in self._singles:
            self._singles[token] = self._decode([token])
        return self._singles[token]

    def _decode(self, tokens: list[int]) -> str:
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        return _SPACE_BY_WIDE.sub("", text) if self._spaced else text

    def _release(self, added: str, *, final: bool) -> str:
        if not self._stop:
            shown = added
        else:
            text = self._held + added
            found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
            self.stopped = bool(found)
            keep = min(found) if found else len(text) - (0 if final else self._beginning_of_stop(text))
            shown, self._held = text[:keep], text[keep:]
        if shown:
            self._parts.append(shown)
        return shown

    def _beginning_of_stop(self, text: str) -> int:
        """Characters at the end of ``text`` that may turn out to be a stop string."""
        longest = min(max(map(len, self._stop)) - 1, len(text))
        return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self._stop)), 0)


def is_spaced(tokenizer: Any) -> bool:
    """Whether decoding puts a space between all words, Chinese characters too, as BERT's tokenizers do."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return isinstance(getattr(backend, "model", None), WordPiece)
