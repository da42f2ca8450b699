"""The backend of our own engine: renders conversations for it and keeps thinking apart from answers."""

import logging
import time
from dataclasses import replace
from typing import Protocol

from tasks.conversation import Conversation
from tasks.errors import TouchstoneError
from tasks.ledger.records import Rendered
from tasks.registry import ModelEntry
from tasks.states import FinishReason
from worker.backends.answer_keys import LocalKeys
from worker.backends.loop import EngineLoop
from worker.backends.protocol import Answer, Description, Failure, Generation, Increment, Sink
from worker.backends.thinking import ThinkingSplitter
from worker.engine.protocol import Delta, Request, Result
from worker.engine.protocol import Event as EngineEvent

logger = logging.getLogger(__name__)


class Renderer(Protocol):
    """Makes a prompt of a conversation."""

    def render(self, conversation: Conversation, entry: ModelEntry) -> Rendered:
        """Raises `InvalidInput` for a conversation that the model's template cannot take."""

    def answers_apart(self, entry: ModelEntry) -> bool:
        """Whether an answer is a message of its own, which white space before it does not belong to."""

    def splitter(self, rendered: Rendered) -> ThinkingSplitter | None:
        """What parts thinking from the answer to this prompt; None for a model that never thinks."""

    def count(self, text: str) -> int:
        """Tokens of a text."""


class LocalBackend:
    """Implements `worker.backends.protocol.Backend` over an engine and the loop that steps it.

    Without ``keys``, which may be set later, no answer has a key.
    """

    def __init__(self, loop: EngineLoop, renderer: Renderer, description: Description, keys: LocalKeys | None = None):
        self.loop, self.renderer, self.description, self.keys = loop, renderer, description, keys

    @property
    def active(self) -> int:
        return self.loop.engine.active

    @property
    def progress(self) -> int:
        return self.loop.engine.progress

    @property
    def failures(self) -> int:
        return self.loop.failures

    def prepare(self, generation: Generation) -> Generation:
        try:
            rendered = self.renderer.render(generation.conversation, generation.entry)
        except TouchstoneError:
            return generation
        keys, apart = self.keys, self.renderer.answers_apart(generation.entry)
        key = None if keys is None else keys.of_prompt(rendered, generation.sampling, generation.sample, apart)
        return replace(generation, rendered=rendered, answer_key=key)

    def submit(self, generation: Generation, sink: Sink) -> None:
        try:
            rendered = generation.rendered or self.renderer.render(generation.conversation, generation.entry)
        except TouchstoneError as error:
            sink(Answer(generation.id, "", FinishReason.ERROR, error=error.message))
            return
        splitter = self.renderer.splitter(rendered)
        request = Request(
            id=generation.id,
            prompt=rendered.tokens or rendered.text or "",
            sampling=generation.sampling,
            priority=generation.priority,
            deadline=generation.deadline,
            # When thinking ends shows only while it streams.
            streams=generation.streams or splitter is not None,
        )
        self.loop.submit(request, _Listener(generation, rendered, self.renderer, splitter, sink))

    def cancel(self, generation_id: str) -> None:
        self.loop.cancel(generation_id)

    def close(self) -> None:
        """The engine ends with its process."""


class _Listener:
    """Takes the engine's events of one request and tells them as the backend's."""

    def __init__(
        self,
        generation: Generation,
        rendered: Rendered,
        renderer: Renderer,
        splitter: ThinkingSplitter | None,
        sink: Sink,
    ):
        self.generation, self.rendered, self.renderer = generation, rendered, renderer
        self.splitter, self.sink = splitter, sink
        self._trims = renderer.answers_apart(generation.entry)
        self._thinking: list[str] = []
        self._text: list[str] = []
        self._answer_started: float | None = None

    def __call__(self, event: EngineEvent | Failure) -> None:
        if isinstance(event, Failure):
            self.sink(event)
        elif isinstance(event, Delta):
            self._take(*((("", event.text)) if self.splitter is None else self.splitter.push(event.text)))
        else:
            self._finish(event)

    def _take(self, thinking: str, text: str) -> None:
        if self._trims:
            text = text.lstrip()
            self._trims = not text
        if self.splitter is not None:
            self._thinking.append(thinking)
            self._text.append(text)
            if text and any(self._thinking):
                self._answer_started = self._answer_started or time.monotonic()
        if self.generation.streams and (text or thinking):
            self.sink(Increment(self.generation.id, text, thinking))

    def _finish(self, result: Result) -> None:
        apart = self.renderer.answers_apart(self.generation.entry)
        text, thinking = result.text.lstrip() if apart else result.text, ""
        if self.splitter is not None:
            self._take(*self.splitter.finish())
            text, thinking = "".join(self._text), "".join(self._thinking)
        self.sink(
            Answer(
                generation_id=self.generation.id,
                text=text,
                finish_reason=result.finish_reason,
                prompt_tokens=result.prompt_tokens,
                output_tokens=result.output_tokens,
                admitted=result.admitted,
                first_token=result.first_token,
                last_token=result.last_token,
                batch_size=result.batch_size,
                error=result.error,
                thinking=thinking,
                thinking_tokens=self._count(thinking) if thinking else None,
                answer_started=self._answer_started,
                rendered=self.rendered,
            )
        )

    def _count(self, text: str) -> int | None:
        try:
            return self.renderer.count(text)
        except Exception as error:
            # A tokenizer may raise anything; on the engine's thread it would fail every other request, too.
            logger.warning("the tokens of a text cannot be counted: %s", type(error).__name__)
            return None
