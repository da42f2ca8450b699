"""Server-sent events, read as the HTML standard says, from bytes that may be cut anywhere."""

import codecs
import re
from dataclasses import dataclass

from worker.backends.openai.problems import TryAgain

MAX_CHARACTERS = 8_000_000  # of one event
LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class ServerEvent:
    """One event: the ``event`` field (default ``message``) and its ``data``, lines joined by a newline."""

    event: str
    data: str


class EventParser:
    """Turns chunks of bytes into events. An event that no blank line ends is none."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._rest = ""
        self._begun = self._after_return = False
        self._event = ""
        self._data: list[str] = []
        self._size = 0

    def push(self, chunk: bytes) -> list[ServerEvent]:
        """Raises `TryAgain` for bytes that are no UTF-8 and for an event without end."""
        try:
            text = self._decoder.decode(chunk)
        except UnicodeDecodeError:
            raise TryAgain("The server's stream is not UTF-8.") from None
        if text and not self._begun:
            self._begun, text = True, text.removeprefix("\ufeff")
        # A carriage return ended its line already, whether or not the other half of that end follows.
        if text:
            after_return, self._after_return = self._after_return, text.endswith("\r")
            text = text.removeprefix("\n") if after_return else text
        *lines, self._rest = LINE_END.split(self._rest + text)
        if len(self._rest) + self._size > MAX_CHARACTERS:
            raise TryAgain("The server's stream has an event without end.")
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            event = ServerEvent(self._event or "message", "\n".join(self._data)) if self._data else None
            self._event, self._data, self._size = "", [], 0
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value)
        elif name == "event":
            self._event = value
        return None  # comments begin with the colon; id and retry mean nothing here
