"""One try of one generation: what its stream has said so far, as text, thinking, times and numbers of tokens."""

import json
import re
import time
from collections.abc import Mapping
from typing import Any

from tasks.registry.entry import Api
from tasks.sampling import Sampling
from tasks.states import FinishReason
from worker.backends.openai.problems import Refused, TryAgain
from worker.backends.openai.sse import ServerEvent
from worker.backends.openai.tokens import TokenCounter
from worker.backends.protocol import Answer
from worker.backends.thinking import KNOWN_MARKS, ThinkingSplitter, beginning_at_end

DONE = "[DONE]"
HALVES = re.compile("[\ud800-\udfff]")
REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "length": FinishReason.LENGTH,
}
FILTERED = "The server's content filter ended this answer."
NO_ANSWER = "The server ended this answer with {!r} instead of text."
CUT = "The server's stream ended before the answer did."
NOT_UNDERSTOOD = "The server's stream is not what OpenAI's interface says: {}."


class Reading:
    """Takes the events of one stream in. Times are points of `time.monotonic`; ``sent`` is when it was asked for.

    ``done``: nothing of interest follows.
    """

    def __init__(self, generation_id: str, sampling: Sampling, api: Api):
        self.generation_id, self.api = generation_id, api
        self.sent: float | None = None
        self.done = False
        self._splitter = ThinkingSplitter(KNOWN_MARKS[0], opened=False)
        self._stops = _StopStrings(sampling.stop)
        self._half = ""
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._first: float | None = None
        self._last: float | None = None
        self._answer_started: float | None = None
        self._reason: str | None = None
        self._stop_string = False
        self._usage: Mapping[str, Any] = {}

    def take(self, event: ServerEvent) -> tuple[str, str]:
        """Text and thinking that an event adds. Raises `TryAgain` and `Refused` for errors in the stream."""
        if self.done:
            return "", ""
        if event.data.strip() == DONE:
            self.done = True
            return "", ""
        try:
            said = json.loads(event.data)
        except ValueError:
            raise TryAgain(NOT_UNDERSTOOD.format("an event is no JSON")) from None
        if not isinstance(said, dict):
            raise TryAgain(NOT_UNDERSTOOD.format("an event is no object"))
        if event.event == "error" or said.get("error") or said.get("object") == "error":
            raise _error(said)
        if isinstance(usage := said.get("usage"), dict):
            self._usage = usage
        choices = said.get("choices") or [{}]
        if not isinstance(choices, list) or not isinstance(choices[0], dict):
            raise TryAgain(NOT_UNDERSTOOD.format("choices is no list of objects"))
        return self._choice(choices[0])

    def finish(self) -> tuple[str, str]:
        """What was held back and is certain now that nothing follows. Raises `TryAgain` for a stream that was cut."""
        if self._reason is None and not self.done:
            raise TryAgain(CUT, connection=True)
        return self._flush()

    @property
    def complete(self) -> bool:
        """The answer has ended, whatever else becomes of the stream."""
        return self.done or self._reason is not None

    @property
    def cut_short(self) -> bool:
        """A stop string was found here, and the server goes on without knowing."""
        return self._stops.found

    @property
    def texts(self) -> tuple[str, str]:
        """The whole answer and the thinking before it, as far as they are certain."""
        return "".join(self._text), "".join(self._thinking)

    def answer(self, prompt: str | None, counter: TokenCounter | None, retries: int) -> Answer:
        """What came of a stream that ended. ``prompt`` is the text that was sent, where that is what was tokenized."""
        reason, error = FinishReason.STOP, None
        if self._stop_string:
            reason = FinishReason.STOP_STRING
        elif self._reason == "content_filter":
            reason, error = FinishReason.ERROR, FILTERED
        elif self._reason in REASONS:
            reason = REASONS[self._reason]
        elif self._reason is not None:
            reason, error = FinishReason.ERROR, NO_ANSWER.format(self._reason)
        return self.ended(reason, error, prompt, counter, retries)

    def ended(
        self,
        reason: FinishReason,
        error: str | None,
        prompt: str | None,
        counter: TokenCounter | None,
        retries: int,
    ) -> Answer:
        """The answer so far, ended for ``reason``."""
        self._flush()
        text, thinking = self.texts
        details = self._usage.get("completion_tokens_details")
        thought = _whole(details if isinstance(details, dict) else {}, "reasoning_tokens")
        output, prompted = _whole(self._usage, "completion_tokens"), _whole(self._usage, "prompt_tokens")
        if counter is not None:
            output = counter.count(thinking) + counter.count(text) if output is None else output
            prompted = counter.count(prompt) if prompted is None and prompt is not None else prompted
            thought = counter.count(thinking) if not thought and thinking else thought
        return Answer(
            generation_id=self.generation_id,
            text=text,
            finish_reason=reason,
            prompt_tokens=prompted,
            output_tokens=output,
            admitted=self.sent,
            first_token=self._first,
            last_token=self._last,
            error=error,
            thinking=thinking,
            thinking_tokens=thought if thinking else None,
            answer_started=self._answer_started,
            retries=retries,
        )

    def _choice(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        given = choice.get("delta") or {} if self.api is Api.CHAT else choice
        content = given.get("content" if self.api is Api.CHAT else "text") or ""
        reasoning = given.get("reasoning_content") or given.get("reasoning") or ""
        if not isinstance(content, str) or not isinstance(reasoning, str):
            raise TryAgain(NOT_UNDERSTOOD.format("a delta is no text"))
        if content or reasoning:
            self._last = time.monotonic()
            self._first = self._first or self._last
        text, thinking = self._take(content)
        told = self._note(text, _characters(reasoning) + thinking)
        if isinstance(reason := choice.get("finish_reason"), str) and not self._stop_string:
            self._reason = reason
            self._stop_string = reason == "stop" and isinstance(choice.get("stop_reason"), str)
        return told

    def _take(self, content: str, final: bool = False) -> tuple[str, str]:
        """Text and thinking of what the answer's own channel says."""
        content = self._half + content
        # A character of JSON's \\u escapes may be cut between its halves.
        held = 0 if final or not ("\ud800" <= content[-1:] <= "\udbff") else 1
        self._half = content[len(content) - held :]
        thinking, text = self._splitter.push(_characters(content[: len(content) - held]))
        if final:
            more = self._splitter.finish()
            thinking, text = thinking + more[0], text + more[1]
        text = self._stops.push(text, final)
        if self._stops.found:
            self.done = self._stop_string = True
        return text, thinking

    def _flush(self) -> tuple[str, str]:
        return ("", "") if self._stops.found else self._note(*self._take("", final=True))

    def _note(self, text: str, thinking: str) -> tuple[str, str]:
        """Keep what came; white space between thinking and answer belongs to neither."""
        if thinking:
            self._thinking.append(thinking)
        if self._thinking and not self._text:
            text = text.lstrip()
            self._answer_started = time.monotonic() if text else None
        if text:
            self._text.append(text)
        return text, thinking


class _StopStrings:
    """Ends a text before the first of some strings, wherever the pieces it comes in are cut."""

    def __init__(self, stops: tuple[str, ...]):
        self.stops, self.found = stops, False
        self._held = ""

    def push(self, text: str, final: bool = False) -> str:
        """What is certain to stand before every stop string."""
        text, self._held = self._held + text, ""
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if places:
            self.found = True
            return text[: min(places)]
        held = 0 if final else max((beginning_at_end(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _characters(text: str) -> str:
    """``text`` with both halves of a character joined; a half alone becomes the replacement character."""
    if not HALVES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _error(said: Mapping[str, Any]) -> TryAgain | Refused:
    """An error that came in the stream; its ``line`` may show the key, which whoever catches it hides."""
    inner = said.get("error")
    inner = inner if isinstance(inner, dict) else {"message": inner or said.get("message")}
    code = inner.get("code") or said.get("code") or inner.get("status")
    line = f"The server ended its stream with an error: {inner.get('message') or 'none that it names'}"
    status = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()) else None
    if status is not None and 400 <= status < 500 and status not in (408, 425, 429):
        return Refused(line, status)
    return TryAgain(line)


def _whole(said: Mapping[str, Any], name: str) -> int | None:
    value = said.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
