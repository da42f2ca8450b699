"""A worker process: one model, one device, joined to Celery and the ledger."""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from celery.signals import worker_ready, worker_shutting_down

from tasks import jobs
from tasks.celery import app, queue_name
from tasks.consume import consume
from tasks.dispatch import Dispatcher
from tasks.errors import TouchstoneError, Unavailable
from tasks.ledger import Ledger
from tasks.ledger.records import Worker
from tasks.live import Live
from tasks.registry import ModelSpec
from tasks.settings import Settings
from tasks.states import RunKind, WorkerState
from worker.loaded import LoadedModel
from worker.loop import EngineLoop
from worker.runner import ChunkRunner

logger = logging.getLogger(__name__)

Load = Callable[[ModelSpec, tuple[int, ...]], LoadedModel]

POOL_THREADS = 24  # more than a worker is ever sent at once, so that an arena chunk always finds one
WATCHDOG_SECONDS = 120.0
EXIT_STALLED = 70


class WorkerProcess:
    def __init__(self, spec: ModelSpec, cores: tuple[int, ...], settings: Settings, load: Load):
        """``load`` makes the model ready and pins this process to the cores that it is given."""
        self.spec, self.cores, self.settings, self.load = spec, cores or spec.cores, settings, load
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.ledger = Ledger(settings)

    def run(self) -> None:
        """Load the model, then work until a signal. Raises `TouchstoneError` when there can be no start."""
        self._register(WorkerState.LOADING)
        try:
            model = self.load(self.spec, self.cores)
        except TouchstoneError as error:
            self.ledger.workers.beat(self.id, state=WorkerState.FAILED, error=error.message)
            raise
        self._register(WorkerState.LOADING, model)
        loop = EngineLoop(model.engine)
        loop.start()
        dispatcher = Dispatcher(app, self.ledger)
        runner = ChunkRunner(
            spec=self.spec,
            model=model,
            loop=loop,
            ledger=self.ledger,
            dispatcher=dispatcher,
            live=Live(self.settings.redis_url),
            settings=self.settings,
            worker=self.id,
        )
        jobs.attach("generate", runner.generate)
        pulse = Pulse(self, runner, dispatcher)
        self._connect_signals(runner, pulse)
        consume([queue_name(self.spec.name, lane) for lane in RunKind], "threads", POOL_THREADS)
        self.ledger.workers.beat(self.id, state=WorkerState.STOPPED)

    def _connect_signals(self, runner: ChunkRunner, pulse: "Pulse") -> None:
        def ready(**_: Any) -> None:
            self.ledger.workers.beat(self.id, state=WorkerState.READY)
            logger.info("%s is ready", self.spec.name)
            pulse.start()

        def stopping(**_: Any) -> None:
            runner.stopping = time.monotonic()

        worker_ready.connect(ready, weak=False)
        worker_shutting_down.connect(stopping, weak=False)

    def _register(self, state: WorkerState, model: LoadedModel | None = None) -> None:
        self.ledger.workers.register(
            Worker(
                id=self.id,
                model=self.spec.name,
                state=state,
                host=socket.gethostname(),
                pid=os.getpid(),
                device=model.device if model else self.spec.device,
                cores=",".join(map(str, self.cores)),
                dtype=model.dtype if model else self.spec.dtype,
                slots=self.spec.slots,
                load_seconds=model.load_seconds if model else None,
            )
        )


class Pulse(threading.Thread):
    """Every few seconds: heartbeat, sweep, dispatch, and a look whether the engine still moves."""

    def __init__(self, process: WorkerProcess, runner: ChunkRunner, dispatcher: Dispatcher):
        super().__init__(name="pulse", daemon=True)
        self.process, self.runner, self.dispatcher = process, runner, dispatcher
        self.engine = runner.loop.engine
        self._moved = time.monotonic()
        self._progress = 0

    def run(self) -> None:
        while True:
            try:
                self._beat()
                self._watch()
            except Unavailable as error:
                logger.warning("%s", error)
            except Exception:
                # A pulse that stops would make a working process look dead: say it and go on.
                logger.exception("the heartbeat failed; it is tried again")
            time.sleep(self.process.settings.sweep)

    def _beat(self) -> None:
        """Raises `Unavailable` when the ledger is away."""
        self.process.ledger.workers.beat(
            self.process.id, active=self.engine.active, speed=self.runner.speed, rss=resident_bytes()
        )
        if not self.runner.stopping:
            self.dispatcher.sweep(self.process.spec.name)

    def _watch(self) -> None:
        if not self.engine.active or self.engine.progress != self._progress:
            self._moved, self._progress = time.monotonic(), self.engine.progress
        elif time.monotonic() - self._moved > WATCHDOG_SECONDS:
            logger.critical("the engine has made no token for %.0f s; ending this worker", WATCHDOG_SECONDS)
            os._exit(EXIT_STALLED)


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM; None where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
