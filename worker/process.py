"""A worker process: one model, one device, joined to Celery and the ledger."""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from typing import Any

from celery.signals import worker_ready, worker_shutting_down

from tasks.errors import ModelError, TouchstoneError, Unavailable
from tasks.ledger import Ledger
from tasks.ledger.locality import check_home
from tasks.ledger.records import Worker
from tasks.queue import jobs
from tasks.queue.celery import app, queue_name
from tasks.queue.consume import consume
from tasks.queue.dispatch import Dispatcher
from tasks.queue.live import Live
from tasks.queue.routine import Routine
from tasks.registry import ModelEntry
from tasks.settings import Settings
from tasks.states import RunKind, WorkerState
from worker.backends.protocol import Backend, Open
from worker.cores import pin_cores
from worker.executor import THREADS, ChunkExecutor
from worker.heartbeat import Heartbeat
from worker.load_progress import LoadProgress

logger = logging.getLogger(__name__)

POOL_THREADS = sum(THREADS.values())
RELEASE_SECONDS = 2.0  # for giving the leases back
LEAVE_SECONDS = 2.0  # for Celery to end by itself


class WorkerProcess:
    def __init__(self, entry: ModelEntry, cores: tuple[int, ...], settings: Settings, open_backend: Open):
        """``open_backend`` makes the model ready, on the cores that this process is then pinned to."""
        self.entry, self.cores, self.settings, self.open_backend = entry, cores or entry.cores, settings, open_backend
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.ledger = Ledger(settings)

    def run(self) -> None:
        """Load the model, then work until a signal. Raises `TouchstoneError` when there can be no start."""
        check_home(self.settings)
        self._register(WorkerState.LOADING)
        try:
            pin_cores(self.cores)
            backend = self._open()
        except TouchstoneError as error:
            self.ledger.workers.beat(self.id, state=WorkerState.FAILED, error=error.message)
            raise
        self._register(WorkerState.LOADING, backend)
        dispatcher = Dispatcher(app, self.ledger, self.settings)
        runner = ChunkExecutor(
            entry=self.entry,
            backend=backend,
            ledger=self.ledger,
            dispatcher=dispatcher,
            live=Live(self.settings.redis_url),
            settings=self.settings,
            worker=self.id,
        )
        jobs.attach("generate", runner.generate)
        self._connect_signals(runner)
        Heartbeat(runner, dispatcher).start()
        consume([queue_name(self.entry.name, lane) for lane in RunKind], "threads", POOL_THREADS)
        runner.state = WorkerState.STOPPED
        self._tell(runner.state)
        backend.close()

    def _connect_signals(self, runner: ChunkExecutor) -> None:
        def ready(**_: Any) -> None:
            # Celery's own way with these waits for every task in the signal's handler: one way to stop is enough.
            for number in (signal.SIGQUIT, signal.SIGINT):
                signal.signal(number, signal.getsignal(signal.SIGTERM))
            if runner.stopping is None:
                runner.state = WorkerState.READY
                self._tell(runner.state)
                logger.info("%s is ready", self.entry.name)

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
        runner.backend.close()
        os._exit(0)

    def _tell(self, state: WorkerState) -> None:
        """Show a state at once; while the ledger is away the next heartbeat does it."""
        try:
            self.ledger.workers.beat(self.id, state=state)
        except Unavailable as error:
            logger.warning("%s", error)

    def _open(self) -> Backend:
        """Load, and show how far it is. Raises `ModelError`, whatever a loader raises."""
        progress = LoadProgress(self.ledger, self.id)
        routine = Routine("loading", self.settings.sweep, progress.beat)
        routine.start()
        try:
            return self.open_backend(self.entry, progress.report)
        except TouchstoneError:
            raise
        except Exception as error:
            logger.exception("%s cannot be loaded", self.entry.name)
            said = (str(error).strip().splitlines() or [""])[0]
            raise ModelError(f"{self.entry.name}: cannot be loaded: {type(error).__name__}: {said}") from error
        finally:
            routine.stop()

    def _register(self, state: WorkerState, backend: Backend | None = None) -> None:
        made = backend.description if backend else None
        self.ledger.workers.register(
            Worker(
                id=self.id,
                model=self.entry.name,
                state=state,
                host=socket.gethostname(),
                pid=os.getpid(),
                device=made.device if made else self.entry.device,
                cores=",".join(map(str, self.cores)),
                dtype=made.dtype if made else "",
                slots=made.slots if made else self.entry.slots,
                load_seconds=made.load_seconds if made else None,
                identity=self.entry.identity,
                facts=dict(made.facts) if made else None,
            )
        )
