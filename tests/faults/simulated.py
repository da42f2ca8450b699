"""A worker whose engine is simulated: all the rest is what ``python -m worker`` runs, and it starts without torch.

``python -m tests.faults.simulated --model NAME``. One step takes ``SIMULATED_STEP`` seconds and gives every running
request one token. Prompts that begin with ``!`` make engine, task or process fail on purpose; ``KILL_BEFORE_FINISH``
names a file: the process that finds it missing makes it, then dies between its last write and the chunk's end.
``CLOSING_FAILS`` makes Celery fail once where it attends to a lost connection, with what kombu was seen to raise.
``STORED_ANSWERS`` gives its answers keys, so that they are found again.
``CLOCK_SHIFT`` is by how many seconds this process's clock is wrong.
"""

import argparse
import hashlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from celery.worker.consumer import Consumer

from tasks.errors import TouchstoneError, Unavailable
from tasks.host.supervisor import EXIT_CANNOT_START, EXIT_TRY_AGAIN
from tasks.ledger.records import Environment
from tasks.registry import ModelEntry, Registry
from tasks.settings import Settings
from tasks.states import FinishReason
from worker import process
from worker.backends.answer_keys import LocalKeys
from worker.backends.local import LocalBackend
from worker.backends.loop import EngineLoop
from worker.backends.protocol import Backend, Description, Report
from worker.bench.text_renderer import TextRenderer
from worker.chunk_work import ChunkWork, Key
from worker.engine.protocol import Delta, Event, Request, Result
from worker.executor import ChunkExecutor

Emit = Callable[[Event], None]


def first_token(prompt: str | tuple[int, ...]) -> str:
    """What every simulated completion of ``prompt`` begins with: it tells whose answer it is, but not the prompt."""
    return hashlib.sha256(str(prompt).encode()).hexdigest()[:8]


@dataclass
class Row:
    request: Request
    text: str = ""
    tokens: int = 0
    admitted: float | None = None
    first: float | None = None


class SimulatedEngine:
    """Implements `worker.engine.protocol.Engine`; one slot in eight is kept for arena prompts."""

    def __init__(self, slots: int, step_seconds: float):
        self.slots, self.step_seconds, self.progress = slots, step_seconds, 0
        self._waiting: list[Row] = []
        self._running: list[Row] = []
        self._cancelled: set[str] = set()

    @property
    def active(self) -> int:
        return len(self._waiting) + len(self._running)

    def add(self, request: Request) -> None:
        self._waiting.append(Row(request))

    def cancel(self, request_id: str) -> None:
        self._cancelled.add(request_id)

    def step(self, emit: Emit) -> None:
        self._admit()
        time.sleep(self.step_seconds)
        self.progress += 1
        for row in [*self._running, *self._waiting]:
            if row.request.id in self._cancelled:
                self._end(row, FinishReason.CANCELLED, emit)
        for row in list(self._running):
            fail_on_purpose(row.request.prompt)
            token = first_token(row.request.prompt) if not row.tokens else "."
            row.text, row.tokens = row.text + token, row.tokens + 1
            row.first = row.first or time.monotonic()
            emit(Delta(row.request.id, token))
            if row.tokens >= row.request.sampling.max_new_tokens:
                self._end(row, FinishReason.LENGTH, emit)

    def _admit(self) -> None:
        self._waiting.sort(key=lambda row: row.request.priority)
        for row in list(self._waiting):
            room = self.slots if row.request.priority == 0 else self.slots - max(1, self.slots // 8)
            if len(self._running) >= room:
                return
            row.admitted = time.monotonic()
            self._waiting.remove(row)
            self._running.append(row)

    def _end(self, row: Row, reason: FinishReason, emit: Emit) -> None:
        (self._running if row in self._running else self._waiting).remove(row)
        self._cancelled.discard(row.request.id)
        now = time.monotonic()
        points = (row.admitted, row.first, now if row.tokens else None)
        emit(Result(row.request.id, row.text, reason, 1, row.tokens, *points, len(self._running) + 1))


def fail_on_purpose(prompt: str | tuple[int, ...]) -> None:
    """What a poisonous prompt does to the engine's thread."""
    match str(prompt).split():
        case ["!exit", *_]:
            os._exit(9)
        case ["!hang", *_]:
            threading.Event().wait()
        case ["!memory", *_]:
            raise MemoryError("simulated: no memory for this prompt")


class FaultyRunner(ChunkExecutor):
    """Fails in the task's thread, or dies there."""

    def _submit(self, work: ChunkWork, keys: Sequence[Key]) -> None:
        for prompt in work.claim.prompts.values():
            match prompt.text.split():
                case ["!raise", "MemoryError", *_]:
                    raise MemoryError("simulated: in the task")
                case ["!raise", "SystemExit", *_]:
                    raise SystemExit("simulated: in the task")
                case ["!die", "after", "claim", file, *_]:
                    die_once(file)
        super()._submit(work, keys)

    def _attend(self, work: ChunkWork) -> bool:
        held = super()._attend(work)
        if file := os.environ.get("KILL_BEFORE_FINISH"):
            die_once(file)
        return held


def give_up_once() -> None:
    """Celery asks a lost connection to give back what was not acknowledged; kombu may find no transport for that."""
    attend = Consumer.on_connection_error_after_connected

    def give_up(consumer: Consumer, error: Exception) -> None:
        Consumer.on_connection_error_after_connected = attend
        raise AttributeError("'NoneType' object has no attribute 'hostname'") from error

    Consumer.on_connection_error_after_connected = give_up


def die_once(file: str) -> None:
    """Kill this process, unless that has been done."""
    try:
        Path(file).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def open_backend(entry: ModelEntry, report: Report) -> Backend:
    step = float(os.environ.get("SIMULATED_STEP", "0.01"))
    environment = Environment("simulated", {"engine": "simulated"})
    loop = EngineLoop(SimulatedEngine(entry.slots, step))
    loop.start()
    keys = LocalKeys({"model": entry.name}, 10_000) if os.environ.get("STORED_ANSWERS") else None
    return LocalBackend(loop, TextRenderer(), Description(environment, "cpu", "none", entry.slots, 0.0), keys)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    process.ChunkExecutor = FaultyRunner
    if shift := float(os.environ.get("CLOCK_SHIFT", "0")):
        right = time.time
        time.time = lambda: right() + shift
    if os.environ.get("CLOSING_FAILS"):
        give_up_once()
    settings = Settings.from_environment()
    try:
        entry = Registry.load(settings.models).get(options.model)
        process.WorkerProcess(entry, (), settings, open_backend).run()
    except TouchstoneError as error:
        sys.stderr.write(f"{error.message}\n")
        return EXIT_TRY_AGAIN if isinstance(error, Unavailable) else EXIT_CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
