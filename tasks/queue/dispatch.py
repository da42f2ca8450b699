"""Keeps the Celery queues of a model short and full enough, from what the ledger says is waiting."""

import logging
import queue
import threading
import time
from collections.abc import Iterable

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from tasks.errors import Unavailable
from tasks.ledger import Ledger
from tasks.queue.celery import SCORE_QUEUE, queue_name
from tasks.settings import Settings
from tasks.states import RunKind

logger = logging.getLogger(__name__)

# A live worker's: one being written, two that fill its slots (a chunk fills at least half of them), one waiting.
BULK_CHUNKS = 4
ARENA_CHUNKS = 16
SWEEPS_UNTIL_LOST = 2  # after which a message that nobody took is published again


class Dispatcher:
    """Publishes messages. A broker that is away is not an error: the sweeper repeats what got lost."""

    def __init__(self, app: Celery, ledger: Ledger, settings: Settings):
        self.app = app
        self.ledger = ledger
        self.lost_after = SWEEPS_UNTIL_LOST * settings.sweep
        self.patience = 2 * settings.renew
        self._sweeps_from = 0.0

    def dispatch(self, model: str) -> int:
        """Publish waiting chunks of ``model`` as far as its live workers have room; returns how many."""
        identities = self.ledger.workers.ready_identities(model)
        workers = len(identities)
        capacity = {RunKind.ARENA: ARENA_CHUNKS * workers, RunKind.BULK: BULK_CHUNKS * workers}
        taken = self.ledger.outbox.dispatch(model, capacity, identities) if workers else []
        for number, item in enumerate(taken):
            # Each wait for a Redis that hangs takes seconds: the rest is left to the sweeper.
            if not self._publish("generate", item.chunk, queue_name(model, item.lane)):
                return number
        return len(taken)

    def request_scores(self, chunk_id: int) -> None:
        """Ask the scorer to score an ended chunk."""
        self._publish("score", chunk_id, SCORE_QUEUE)

    def sweep(self, model: str) -> None:
        """Put back lost work, then dispatch."""
        if time.monotonic() >= self._sweeps_from:
            self._sweep()
        self.dispatch(model)

    def _sweep(self) -> None:
        try:
            swept = self.ledger.sweeper.sweep(self.lost_after)
        except Unavailable:
            # Nobody could renew a lease meanwhile: workers get the time for it before theirs are taken for lost.
            self._sweeps_from = time.monotonic() + self.patience
            raise
        if any((swept.requeued, swept.split, swept.given_up, swept.closed, swept.purged)):
            logger.warning("sweep: %s", swept)

    def _publish(self, task: str, chunk_id: int, queue: str) -> bool:
        try:
            self.app.send_task(task, args=[chunk_id], queue=queue, argsrepr="", kwargsrepr="")
        except (BrokerError, RedisError, OSError) as error:
            logger.warning("could not publish chunk %d (%s); it will be tried again", chunk_id, type(error).__name__)
            return False
        return True


class DispatchThread:
    """Dispatches beside its caller, so that a Redis that hangs never keeps a person waiting."""

    def __init__(self, dispatcher: Dispatcher):
        self.dispatcher = dispatcher
        self._models: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="dispatch", daemon=True).start()

    def request(self, models: Iterable[str]) -> None:
        """Publish what waits for ``models``, soon. What fails is left to the workers' sweepers."""
        for model in models:
            self._models.put(model)

    def _run(self) -> None:
        while True:
            wanted = {self._models.get()}
            while not self._models.empty():
                wanted.add(self._models.get())
            for model in wanted:
                try:
                    self.dispatcher.dispatch(model)
                except Unavailable as error:
                    logger.warning("could not dispatch to %s: %s The sweeper will do it.", model, error)
                except Exception:
                    logger.exception("could not dispatch to %s; the sweeper will do it", model)
