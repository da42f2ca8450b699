"""How far a worker is with loading, shown in the ledger while it lasts."""

import logging
import threading
import time

from tasks.errors import Unavailable
from tasks.ledger import Ledger
from tasks.states import LoadStage

logger = logging.getLogger(__name__)

SHOW_SECONDS = 1.0  # at least between two shares of one stage


class LoadProgress:
    """Notes stages of loading; `beat` shows that a worker lives which has none yet to report."""

    def __init__(self, ledger: Ledger, worker: str):
        self.ledger, self.worker = ledger, worker
        self._stage = LoadStage.STARTING
        self._share: float | None = None
        self._shown = 0.0
        self._lock = threading.Lock()

    def report(self, stage: LoadStage, share: float | None = None) -> None:
        """Implements `worker.backends.protocol.Report`. A ledger that is away is tried again with the next beat."""
        with self._lock:
            is_new = stage is not self._stage
            self._stage, self._share = stage, share
            if not is_new and time.monotonic() - self._shown < SHOW_SECONDS:
                return
        try:
            self.beat()
        except Unavailable as error:
            logger.warning("%s", error)

    def beat(self) -> None:
        """Raises `Unavailable`."""
        self._shown = time.monotonic()
        self.ledger.workers.beat(self.worker, stage=self._stage, stage_share=self._share)
