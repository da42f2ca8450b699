"""Answers as a stream of chunks, each passed on as it comes."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.errors import TouchstoneError
from tasks.ledger.records import Completion
from tasks.openai.bodies import Endpoint
from tasks.openai.objects import FINISH, PREFIX, usage_of
from tasks.queue.live import LiveEvent
from web.openai.answering import Answering
from web.openai.errors import AnswerFailed, error_object

OBJECT = {Endpoint.CHAT: "chat.completion.chunk", Endpoint.COMPLETIONS: "text_completion"}
ALIVE_SECONDS = 5.0  # of silence, after which a comment keeps the connection open


@dataclass
class Told:
    """What is known of one answer's text, and how much of it was passed on; thinking apart."""

    attempt: int = -1
    text: str = ""
    thinking: str = ""
    passed: str = ""
    passed_thinking: str = ""

    def take(self, event: LiveEvent) -> tuple[str, str]:
        """Take in live text; returns what of text and thinking is to be passed on now.

        A completion that was begun anew repeats itself: nothing is passed on until it is further than it was.
        """
        if event.attempt > self.attempt:
            self.attempt, self.text, self.thinking = event.attempt, "", ""
        self.text += event.text.replace("\x00", "")
        self.thinking += event.thinking.replace("\x00", "")
        return self._pass_on()

    def end(self, row: Completion) -> tuple[str, str]:
        """What is left to be passed on. Raises `AnswerFailed` where another text was passed on before."""
        self.text, self.thinking = row.text, row.thinking or ""
        left = self._pass_on()
        if (self.text, self.thinking) != (self.passed, self.passed_thinking):
            raise AnswerFailed("The model began anew and answered otherwise; ask again.", "answer_changed")
        return left

    def _pass_on(self) -> tuple[str, str]:
        text = self.text[len(self.passed) :] if self.text.startswith(self.passed) else ""
        begun = self.thinking.startswith(self.passed_thinking)
        thinking = self.thinking[len(self.passed_thinking) :] if begun else ""
        self.passed, self.passed_thinking = self.passed + text, self.passed_thinking + thinking
        return text, thinking


class ChunkStream:
    """The chunks of one request, as lines of Server-Sent Events."""

    def __init__(self, answering: Answering):
        self.answering, self.asked = answering, answering.asked
        run = answering.run
        self.head = {
            "id": f"{PREFIX[self.asked.endpoint]}-{run.id}",
            "object": OBJECT[self.asked.endpoint],
            "created": int(run.created),
            "model": self.asked.model,
        }
        self.told = [Told() for _ in range(run.prompts * run.samples)]
        self._begun: set[int] = set()

    def lines(self) -> Iterator[str]:
        """Every chunk, usage where it is asked for, and the mark of the end; an error instead of what it keeps away."""
        try:
            yield from self._texts()
            for index, row in enumerate(self.answering.rows):
                yield from self._chunks(index, *self.told[index].end(row))
                yield self._chunk([self._choice(index, {}, FINISH[row.finish_reason])])
            if self.asked.include_usage:
                yield self._line(self.head | {"choices": [], "usage": usage_of(self.answering.rows)})
            yield "data: [DONE]\n\n"
        except TouchstoneError as error:
            yield self._line({"error": error_object(error)})

    def _texts(self) -> Iterator[str]:
        said = time.monotonic()
        for events in self.answering.events():
            for event in events:
                index = event.idx * self.asked.samples + event.sample
                yield from self._chunks(index, *self.told[index].take(event))
            if events:
                said = time.monotonic()
            elif time.monotonic() - said > ALIVE_SECONDS:
                said = time.monotonic()
                yield ": waiting\n\n"

    def _chunks(self, index: int, text: str, thinking: str) -> Iterator[str]:
        delta = {"reasoning_content": thinking} if thinking else {}
        delta |= {"content": text} if text else {}
        if delta:
            yield self._chunk([self._choice(index, delta)])

    def _choice(self, index: int, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": finish}
        if self.asked.endpoint is Endpoint.COMPLETIONS:
            return choice | {"text": delta.get("content", "")}
        role = {} if index in self._begun else {"role": "assistant"}
        self._begun.add(index)
        return choice | {"delta": role | delta}

    def _chunk(self, choices: list[dict[str, Any]]) -> str:
        usage = {"usage": None} if self.asked.include_usage else {}
        return self._line(self.head | {"choices": choices} | usage)

    def _line(self, value: dict[str, Any]) -> str:
        return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
