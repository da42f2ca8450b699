"""What shows that a worker lives, and ends it when its engine does not."""

import logging
import os
import time

from tasks.queue.dispatch import Dispatcher
from tasks.queue.routine import Routine
from worker.executor import ChunkExecutor

logger = logging.getLogger(__name__)

EXIT_STALLED = 70
MAX_FAILURES = 3  # of the backend, without a token between them


class Heartbeat:
    """Every few seconds: heartbeat; sweep and dispatch; a look whether the engine still moves.

    Each has a thread of its own, so that a ledger or a Redis that is slow to answer delays no other.
    """

    def __init__(self, runner: ChunkExecutor, dispatcher: Dispatcher):
        self.runner, self.dispatcher = runner, dispatcher
        self.ledger, self.settings, self.backend = runner.ledger, runner.settings, runner.backend
        self._looked = time.monotonic()
        self._stuck = 0.0  # seconds without a token
        self._progress = 0

    def start(self) -> None:
        for work in (self.watch, self.beat, self.sweep):
            Routine(work.__name__, self.settings.sweep, work).start()

    def beat(self) -> None:
        """Raises `Unavailable` when the ledger is away."""
        runner = self.runner
        changes = {"active": self.backend.active, "speed": runner.speed.value, "rss": resident_bytes()}
        self.ledger.workers.beat(runner.worker, state=runner.state, **changes)
        asked = time.monotonic()
        clock = self.ledger.clock()
        runner.clock = clock - (asked + time.monotonic()) / 2

    def sweep(self) -> None:
        """Raises `Unavailable` when the ledger is away."""
        if not self.runner.stopping:
            self.dispatcher.sweep(self.runner.entry.name)

    def watch(self) -> None:
        """End this process when its engine makes no token any more."""
        now = time.monotonic()
        # Time in which this whole process stood still (a machine that slept) is not the engine's fault.
        passed, self._looked = min(now - self._looked, 2 * self.settings.sweep), now
        moves = not self.backend.active or self.backend.progress != self._progress
        self._stuck, self._progress = 0.0 if moves else self._stuck + passed, self.backend.progress
        # By then its leases are gone: whatever else it claimed would only lose an attempt.
        self.runner.stalled = self._stuck > self.settings.lease
        if self._stuck > self.settings.watchdog:
            logger.critical("the backend has made no token for %.0f s; ending this worker", self._stuck)
            os._exit(EXIT_STALLED)
        if self.backend.failures >= MAX_FAILURES:
            logger.critical("the backend has failed %d times in a row; ending this worker", MAX_FAILURES)
            os._exit(EXIT_STALLED)


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM; None where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
