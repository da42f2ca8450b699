"""Keeps the Celery queues of a model short and full enough, from what the ledger says is waiting."""

import logging

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from tasks.celery import SCORE_QUEUE, queue_name
from tasks.ledger import Ledger
from tasks.states import RunKind

logger = logging.getLogger(__name__)

BULK_CHUNKS = 3  # a live worker's: one being written, one running, one waiting
ARENA_CHUNKS = 16
MESSAGE_LOST_AFTER = 10.0


class Dispatcher:
    """Publishes messages. A broker that is away is not an error: the sweeper repeats what got lost."""

    def __init__(self, app: Celery, ledger: Ledger):
        self.app = app
        self.ledger = ledger

    def dispatch(self, model: str) -> int:
        """Publish waiting chunks of ``model`` as far as its live workers have room; returns how many."""
        workers = self.ledger.workers.ready(model)
        capacity = {RunKind.ARENA: ARENA_CHUNKS * workers, RunKind.BULK: BULK_CHUNKS * workers}
        taken = self.ledger.chunks.dispatch(model, capacity) if workers else []
        return sum(self._publish("generate", item.chunk, queue_name(model, item.lane)) for item in taken)

    def request_scores(self, chunk_id: int) -> None:
        """Ask the scorer to score an ended chunk."""
        self._publish("score", chunk_id, SCORE_QUEUE)

    def sweep(self, model: str) -> None:
        """Put back lost work, then dispatch."""
        swept = self.ledger.chunks.sweep(MESSAGE_LOST_AFTER)
        if any((swept.requeued, swept.split, swept.given_up, swept.closed)):
            logger.warning("sweep: %s", swept)
        self.dispatch(model)

    def _publish(self, task: str, chunk_id: int, queue: str) -> bool:
        try:
            self.app.send_task(task, args=[chunk_id], queue=queue, argsrepr="", kwargsrepr="")
        except (BrokerError, RedisError, OSError) as error:
            logger.warning("could not publish chunk %d (%s); it will be tried again", chunk_id, type(error).__name__)
            return False
        return True
