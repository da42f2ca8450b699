"""A process of simulated workers: the real claim, write, finish, heartbeat and sweep around an engine that only counts.

``python -m worker.bench.simulated --model NAME --workers 10`` takes chunks from Celery; with ``--direct`` it hands
them to itself, which leaves the ledger's share of the work.
"""

import argparse
import itertools
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from celery import Celery

from tasks.errors import Unavailable
from tasks.ledger import Ledger
from tasks.ledger.records import Environment, Worker
from tasks.queue import jobs
from tasks.queue.celery import app, queue_name
from tasks.queue.consume import consume
from tasks.queue.dispatch import Dispatcher
from tasks.queue.live import Live
from tasks.registry import Registry
from tasks.settings import Settings
from tasks.states import FinishReason, RunKind, WorkerState
from worker.backends.local import LocalBackend
from worker.backends.loop import EngineLoop
from worker.backends.protocol import Description
from worker.bench.text_renderer import TextRenderer
from worker.engine.protocol import Event, Request, Result
from worker.executor import ChunkExecutor
from worker.heartbeat import Heartbeat
from worker.process import POOL_THREADS

logger = logging.getLogger(__name__)

ENVIRONMENT = Environment("simulated", {"engine": "simulated"})
SLOTS = 16
ROTA_THREADS = 4


class SimulatedEngine:
    """Answers every request at its next step, with ``characters`` characters of no meaning."""

    slots = SLOTS

    def __init__(self, characters: int):
        self.text = "春" * characters
        self.progress = 0
        self._waiting: list[Request] = []

    @property
    def active(self) -> int:
        return len(self._waiting)

    def add(self, request: Request) -> None:
        self._waiting.append(request)

    def cancel(self, request_id: str) -> None:
        """Nothing is open for longer than a step."""

    def step(self, emit: Callable[[Event], None]) -> None:
        now = time.monotonic()
        tokens = len(self.text)
        for request in self._waiting:
            self.progress += tokens
            prompt_tokens = len(request.prompt)
            reason = FinishReason.LENGTH
            emit(Result(request.id, self.text, reason, prompt_tokens, tokens, now, now, now, len(self._waiting)))
        self._waiting.clear()


class InProcess:
    """Stands where Celery's app does and keeps the chunks in this process."""

    def __init__(self) -> None:
        self.chunks: queue.SimpleQueue[int] = queue.SimpleQueue()

    def send_task(self, name: str, args: list[int], **_: Any) -> None:
        if name == "generate":
            self.chunks.put(args[0])

    def work(self, generate: Callable[[int], None]) -> None:
        """Take chunks on as many threads as a worker has, until a signal."""

        def take() -> None:
            while True:
                chunk_id = self.chunks.get()
                try:
                    generate(chunk_id)
                except Exception:
                    logger.exception("chunk %d failed; the sweeper will put it back", chunk_id)

        for _ in range(POOL_THREADS):
            threading.Thread(target=take, daemon=True).start()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.bench.simulated", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--characters", type=int, default=100, help="length of an answer")
    parser.add_argument("--direct", action="store_true", help="without Celery and Redis")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    settings = Settings.from_environment()
    local = InProcess()
    engine = SimulatedEngine(options.characters)
    dispatcher = Dispatcher(cast(Celery, local) if options.direct else app, Ledger(settings), settings)
    loop = EngineLoop(engine)
    loop.start()
    runners = [make_runner(options.model, loop, dispatcher, settings, number) for number in range(options.workers)]
    turns = itertools.cycle(runners)

    def generate(chunk_id: int) -> None:
        """The workers of this process take turns with what comes in."""
        next(turns).generate(chunk_id)

    if options.direct:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    for number in range(ROTA_THREADS):
        pulses = [Heartbeat(runner, dispatcher) for runner in runners[number::ROTA_THREADS]]
        if pulses:
            threading.Thread(target=rota, args=[pulses, settings.sweep], name="rota", daemon=True).start()
    if options.direct:
        local.work(generate)
    else:
        jobs.attach("generate", generate)
        consume([queue_name(options.model, lane) for lane in RunKind], "threads", POOL_THREADS)
    os._exit(0)  # the other threads are not worth waiting for


def rota(pulses: Sequence[Heartbeat], seconds: float) -> None:
    """Give each worker its heartbeat and its sweep every ``seconds``, or as often as the ledger allows."""
    begun = time.monotonic()
    for number, pulse in enumerate(itertools.cycle(pulses)):
        time.sleep(max(0.0, begun + number * seconds / len(pulses) - time.monotonic()))
        try:
            pulse.beat()
            pulse.sweep()
        except Unavailable as error:
            logger.warning("%s", error)


def make_runner(model: str, loop: EngineLoop, dispatcher: Dispatcher, settings: Settings, number: int) -> ChunkExecutor:
    """A worker that is known to the ledger and ready."""
    name = f"{socket.gethostname()}-{os.getpid()}-{number}"
    dispatcher.ledger.workers.register(
        Worker(name, model, WorkerState.READY, socket.gethostname(), os.getpid(), "simulated", "", "none", SLOTS)
    )
    runner = ChunkExecutor(
        entry=Registry.load(settings.models).get(model),
        backend=LocalBackend(loop, TextRenderer(), Description(ENVIRONMENT, "simulated", "none", SLOTS, 0.0)),
        ledger=dispatcher.ledger,
        dispatcher=dispatcher,
        live=Live(settings.redis_url),
        settings=settings,
        worker=name,
    )
    runner.state = WorkerState.READY
    return runner


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
