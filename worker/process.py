"""A worker process: one model, one device, joined to Celery and the ledger."""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from celery.signals import worker_ready, worker_shutting_down

from tasks.errors import TouchstoneError, Unavailable
from tasks.ledger import Ledger
from tasks.ledger.locality import check_home
from tasks.ledger.records import Worker
from tasks.queue import jobs
from tasks.queue.celery import app, queue_name
from tasks.queue.consume import consume
from tasks.queue.dispatch import Dispatcher
from tasks.queue.live import Live
from tasks.registry import ModelSpec
from tasks.settings import Settings
from tasks.states import RunKind, WorkerState
from worker.backends.loaded import LoadedModel
from worker.backends.loop import load_and_start
from worker.cores import pin_cores
from worker.executor import THREADS, ChunkExecutor
from worker.heartbeat import Heartbeat

logger = logging.getLogger(__name__)

Load = Callable[[ModelSpec], LoadedModel]

POOL_THREADS = sum(THREADS.values())
RELEASE_SECONDS = 2.0  # for giving the leases back
LEAVE_SECONDS = 2.0  # for Celery to end by itself


class WorkerProcess:
    def __init__(self, spec: ModelSpec, cores: tuple[int, ...], settings: Settings, load: Load):
        """``load`` makes the model ready, on the cores that this process is then pinned to."""
        self.spec, self.cores, self.settings, self.load = spec, cores or spec.cores, settings, load
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.ledger = Ledger(settings)

    def run(self) -> None:
        """Load the model, then work until a signal. Raises `TouchstoneError` when there can be no start."""
        check_home(self.settings)
        self._register(WorkerState.LOADING)
        try:
            pin_cores(self.cores)
            model, loop = load_and_start(lambda: self.load(self.spec))
        except TouchstoneError as error:
            self.ledger.workers.beat(self.id, state=WorkerState.FAILED, error=error.message)
            raise
        self._register(WorkerState.LOADING, model)
        dispatcher = Dispatcher(app, self.ledger, self.settings)
        runner = ChunkExecutor(
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
        self._connect_signals(runner)
        Heartbeat(runner, dispatcher).start()
        consume([queue_name(self.spec.name, lane) for lane in RunKind], "threads", POOL_THREADS)
        runner.state = WorkerState.STOPPED
        self._tell(runner.state)

    def _connect_signals(self, runner: ChunkExecutor) -> None:
        def ready(**_: Any) -> None:
            # Celery's own way with these waits for every task in the signal's handler: one way to stop is enough.
            for number in (signal.SIGQUIT, signal.SIGINT):
                signal.signal(number, signal.getsignal(signal.SIGTERM))
            if runner.stopping is None:
                runner.state = WorkerState.READY
                self._tell(runner.state)
                logger.info("%s is ready", self.spec.name)

        def stopping(**_: Any) -> None:
            if runner.stopping is None:
                runner.stopping, runner.state = time.monotonic(), WorkerState.STOPPED
                threading.Thread(target=self._drain, args=[runner], name="drain", daemon=True).start()

        worker_ready.connect(ready, weak=False)
        worker_shutting_down.connect(stopping, weak=False)

    def _drain(self, runner: ChunkExecutor) -> None:
        """Wait until what runs has ended or was given back, then end this process: Celery may wait without bound."""
        deadline = time.monotonic() + self.settings.drain + RELEASE_SECONDS
        self._tell(runner.state)  # no more work is to be sent here
        while runner.running and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(LEAVE_SECONDS)
        logger.warning("Celery has not ended; ending without it")
        os._exit(0)

    def _tell(self, state: WorkerState) -> None:
        """Show a state at once; while the ledger is away the next heartbeat does it."""
        try:
            self.ledger.workers.beat(self.id, state=state)
        except Unavailable as error:
            logger.warning("%s", error)

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
