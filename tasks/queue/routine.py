"""Work that a process repeats every few seconds, whatever happens."""

import logging
import threading
from collections.abc import Callable

from tasks.errors import Unavailable

logger = logging.getLogger(__name__)


class Routine(threading.Thread):
    """Does ``work`` again and again, ``seconds`` after it has ended. If it stopped, others would wait for ever."""

    def __init__(self, name: str, seconds: float, work: Callable[[], None]):
        super().__init__(name=name, daemon=True)
        self.seconds, self.work = seconds, work
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Begin no work any more."""
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.work()
            except Unavailable as error:
                logger.warning("%s", error)
            except Exception:
                logger.exception("%s failed; it is tried again", self.name)
            self._stopped.wait(self.seconds)
