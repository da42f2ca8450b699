"""The thread that shows that a worker lives, and ends it when its engine does not."""

import logging
import os
import threading
import time

from tasks.dispatch import Dispatcher
from tasks.errors import Unavailable
from worker.runner import ChunkRunner

logger = logging.getLogger(__name__)

EXIT_STALLED = 70
MAX_FAILURES = 3  # of the engine, without a token between them


class Pulse(threading.Thread):
    """Every few seconds: heartbeat, sweep, dispatch, and a look whether the engine still moves."""

    def __init__(self, runner: ChunkRunner, dispatcher: Dispatcher):
        super().__init__(name="pulse", daemon=True)
        self.runner, self.dispatcher = runner, dispatcher
        self.ledger, self.settings, self.engine = runner.ledger, runner.settings, runner.loop.engine
        self._moved = time.monotonic()
        self._progress = 0

    def run(self) -> None:
        while True:
            self._watch()
            try:
                self._beat()
            except Unavailable as error:
                logger.warning("%s", error)
            except Exception:
                # A pulse that stops would make a working process look dead: say it and go on.
                logger.exception("the heartbeat failed; it is tried again")
            time.sleep(self.settings.sweep)

    def _beat(self) -> None:
        """Raises `Unavailable` when the ledger is away."""
        runner = self.runner
        self.ledger.workers.beat(runner.worker, active=self.engine.active, speed=runner.speed, rss=resident_bytes())
        runner.clock = self.ledger.clock() - time.monotonic()
        if not runner.stopping:
            self.dispatcher.sweep(runner.spec.name)

    def _watch(self) -> None:
        if not self.engine.active or self.engine.progress != self._progress:
            self._moved, self._progress = time.monotonic(), self.engine.progress
        stuck = time.monotonic() - self._moved
        # By then its leases are gone: whatever else it claimed would only lose an attempt.
        self.runner.stalled = stuck > self.settings.lease
        if stuck > self.settings.watchdog:
            logger.critical("the engine has made no token for %.0f s; ending this worker", stuck)
            os._exit(EXIT_STALLED)
        if self.runner.loop.failures >= MAX_FAILURES:
            logger.critical("the engine has failed %d times in a row; ending this worker", MAX_FAILURES)
            os._exit(EXIT_STALLED)


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM; None where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
