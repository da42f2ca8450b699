"""One generation's way through a server: asked again where that helps, and ended exactly once."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.errors import InvalidInput
from tasks.states import FinishReason
from worker.backends.openai.client import Client, finish_reading
from worker.backends.openai.liveness import Liveness
from worker.backends.openai.parameters import Parameters
from worker.backends.openai.problems import Refused, ServerLost, TryAgain
from worker.backends.openai.reading import Reading
from worker.backends.openai.served import ServedProcess
from worker.backends.openai.sse import EventParser
from worker.backends.openai.tokens import TokenCounter
from worker.backends.protocol import Answer, Failure, Generation, Increment, Sink

logger = logging.getLogger(__name__)

TRIES = 5
FIRST_WAIT = 1.0  # seconds before the second try, doubled for each that follows
LONGEST_WAIT = 30.0
LONGEST_ANNOUNCED = 600.0  # that a server may ask for
JITTER = 0.5  # share of a wait that is left to chance


@dataclass
class Server:
    """What the generations of one backend share. ``busy_until``: nothing is sent before, because the server said so.

    ``on_refused`` is called when the server turned out not to know a setting.
    """

    client: Client
    parameters: Parameters
    liveness: Liveness
    counter: TokenCounter | None = None
    process: ServedProcess | None = None
    busy_until: float = 0.0
    on_refused: Callable[[], None] = lambda: None


class Attempts:
    """Asks for one generation until there is an answer, until asking is no use, or until it is cancelled or late.

    ``reading`` is what the last try that brought text has said.
    """

    def __init__(self, generation: Generation, sink: Sink, server: Server):
        self.generation, self.sink, self.server = generation, sink, server
        self.reading = self._new_reading()
        self.retries = 0
        self._prompt: str | None = None

    async def run(self) -> Answer | Failure:
        """The end of it; whoever interrupts this calls `end`."""
        body: dict[str, Any] = {}
        while True:
            try:
                await self._wait_for_server()
                body = self.server.parameters.body(self.generation)
                await self._ask(body)
                return self.reading.answer(self._prompt, self.server.counter, self.retries)
            except InvalidInput as error:
                return self.end(FinishReason.ERROR, error.message)
            except ServerLost as error:
                return Failure(self.generation.id, str(error))
            except Refused as error:
                if error.status not in (400, 422) or not self._goes_without(body, error.line):
                    return self.end(FinishReason.ERROR, error.line)
            except TryAgain as error:
                if (given_up := await self._wait_to_try_again(error)) is not None:
                    return given_up

    def end(self, reason: FinishReason, error: str | None = None) -> Answer:
        """The partial answer, ended for ``reason``."""
        return self.reading.ended(reason, error, self._prompt, self.server.counter, self.retries)

    async def _ask(self, body: Mapping[str, Any]) -> None:
        client, parser, reading = self.server.client, EventParser(), self._new_reading()
        self._prompt = body.get("prompt")
        reading.sent = time.monotonic()
        if not any(self.reading.texts):
            self.reading = reading
        try:
            async with client.stream(self.server.parameters.path, body) as chunks:
                async for chunk in chunks:
                    for event in parser.push(chunk):
                        self._show(reading, *reading.take(event))
                    if reading.done:
                        break
                if reading.done and not reading.cut_short:
                    await finish_reading(chunks)
        except TryAgain:
            if not reading.complete:
                raise
        self._show(reading, *reading.finish(), final=True)

    def _new_reading(self) -> Reading:
        return Reading(self.generation.id, self.generation.sampling, self.server.parameters.api)

    def _show(self, reading: Reading, text: str, thinking: str, final: bool = False) -> None:
        """Tell what is new. What an earlier try has shown counts until this one has something to show."""
        if not (text or thinking or final):
            return
        restarts = reading is not self.reading
        self.reading = reading
        if (text or thinking) and self.server.process is not None:
            self.server.process.made_token()
        if self.generation.streams and (text or thinking or restarts):
            self.sink(Increment(self.generation.id, text, thinking, restarts))

    async def _wait_for_server(self) -> None:
        server, deadline = self.server, self.generation.deadline
        if server.process is not None:
            await server.process.ready()
        while (wait := server.busy_until - time.monotonic()) > 0:
            if deadline is not None and server.busy_until > deadline:
                raise Refused(f"The server asks to wait {wait:.0f} s, which is longer than the deadline allows.")
            await asyncio.sleep(wait + random.random() * JITTER)

    async def _wait_to_try_again(self, error: TryAgain) -> Answer | Failure | None:
        """What the generation ends with if it was asked often enough."""
        server = self.server
        if self.retries + 1 == TRIES:
            line = f"{error.line} (asked {TRIES} times)"
            # A served process may have ended because of this very prompt: it is then found out alone.
            if error.connection and server.process is not None:
                return Failure(self.generation.id, line)
            return self.end(FinishReason.ERROR, line)
        # What follows the colon are the server's words, and may repeat the prompt.
        logger.info("asking again: %s", error.line.partition(":")[0])
        if error.after is not None:
            wait = min(error.after, LONGEST_ANNOUNCED)
            server.busy_until = max(server.busy_until, time.monotonic() + wait)
            server.liveness.sign(wait)
        else:
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2**self.retries)
            await asyncio.sleep(wait * (1 - random.random() * JITTER))
        self.retries += 1
        return None

    def _goes_without(self, body: Mapping[str, Any], said: str) -> bool:
        """Whether the server named a setting that it does not know, which it is not sent any more."""
        names = self.server.parameters.refuse(body, said)
        if names:
            logger.warning("the server does not know %s and is asked without it", ", ".join(names))
            self.server.on_refused()
        return bool(names)
