"""The backend of servers that speak OpenAI's interface: generations go in, one event loop asks for all of them."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

from tasks.errors import InvalidInput
from tasks.states import FinishReason
from worker.backends.answer_keys import AnswerKeys
from worker.backends.openai.attempts import Attempts, Server
from worker.backends.openai.environment import environment_of
from worker.backends.openai.loop_thread import LoopThread
from worker.backends.openai.slots import PrioritySlots
from worker.backends.protocol import LATE, Answer, Description, Failure, Generation, Sink

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
CLOSED = "The backend is closed."


class OpenAIBackend:
    """Implements `worker.backends.protocol.Backend`; at most ``description.slots`` requests run at once.

    Without ``keys`` no answer has a key.
    """

    def __init__(self, server: Server, description: Description, loop: LoopThread, keys: AnswerKeys | None = None):
        """Called in ``loop``."""
        self.server, self.description, self.keys = server, description, keys
        self._loop = loop
        self._facts: dict[str, Any] = dict(description.environment.facts)
        self._slots = PrioritySlots(description.slots)
        self._open: dict[str, Sink] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ticking = asyncio.create_task(self._tick())
        server.on_refused = self._note_refused

    @property
    def active(self) -> int:
        return len(self._open)

    @property
    def progress(self) -> int:
        return self.server.liveness.progress

    @property
    def failures(self) -> int:
        """Deaths of a served process since it last made a token; what a server elsewhere does is no failure of ours."""
        return self.server.process.deaths if self.server.process is not None else 0

    def prepare(self, generation: Generation) -> Generation:
        if self.keys is None:
            return generation
        sampling = (
            replace(generation.sampling, seed=0) if generation.sampling.temperature == 0.0 else generation.sampling
        )
        try:
            asked = self.server.parameters.asked(replace(generation, sampling=sampling))
        except InvalidInput:
            return generation
        key = self.keys.key(sampling, generation.sample, b"", asked=asked)
        return replace(generation, answer_key=key)

    def submit(self, generation: Generation, sink: Sink) -> None:
        self._open[generation.id] = sink
        if not self._loop.call(self._start, generation, sink):
            self._end(Failure(generation.id, CLOSED), sink)

    def cancel(self, generation_id: str) -> None:
        self._loop.call(self._cancel, generation_id)

    def close(self) -> None:
        if self._loop.loop.is_closed():
            return
        self._loop.run(self._close())
        self._loop.stop()

    def _start(self, generation: Generation, sink: Sink) -> None:
        if len(self._open) == 1:
            self.server.liveness.sign()  # from now on it is waited for
        self._tasks[generation.id] = asyncio.create_task(self._run(generation, sink))

    def _cancel(self, generation_id: str) -> None:
        task = self._tasks.pop(generation_id, None)
        if task is not None:
            # A task that has not begun would end without its answer: it begins before this call comes.
            self._loop.loop.call_soon(task.cancel)

    async def _run(self, generation: Generation, sink: Sink) -> None:
        attempts = Attempts(generation, sink, self.server)
        end: Answer | Failure
        try:
            async with asyncio.timeout_at(generation.deadline), self._slots.take(generation.priority):
                end = await attempts.run()
        except TimeoutError:
            end = attempts.end(FinishReason.DEADLINE, LATE)
        except asyncio.CancelledError:
            end = attempts.end(FinishReason.CANCELLED)
        except Exception as error:  # a mistake of ours must not leave a generation open
            logger.exception("a request went wrong")
            end = Failure(generation.id, type(error).__name__)
        self._tasks.pop(generation.id, None)
        self._end(end, sink)

    def _end(self, end: Answer | Failure, sink: Sink) -> None:
        del self._open[end.generation_id]
        sink(end if end.error is None else replace(end, error=self.server.client.hide(end.error)))

    def _note_refused(self) -> None:
        """From here on answers are made without a setting, which is another environment."""
        facts = self._facts | {"refused": sorted(self.server.parameters.refused)}
        self.description = replace(self.description, environment=environment_of(facts))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._open:
                self.server.liveness.tick()

    async def _close(self) -> None:
        self._ticking.cancel()
        tasks = list(self._tasks.values())
        for generation_id in list(self._tasks):
            self._cancel(generation_id)
        if tasks:
            await asyncio.wait(tasks)
        await self.server.client.close()
        if self.server.process is not None:
            await self.server.process.close()
