"""The light worker: scores what has ended and sweeps when no model worker is there to do it."""

import logging

from tasks.ledger import Ledger
from tasks.ledger.locality import check_home
from tasks.ledger.records import ScoreRow
from tasks.measures.answers import answer_of
from tasks.measures.grace import score_answer
from tasks.queue import jobs
from tasks.queue.celery import SCORE_QUEUE, app
from tasks.queue.consume import consume
from tasks.queue.dispatch import Dispatcher
from tasks.queue.routine import Routine
from tasks.registry import Registry
from tasks.settings import Settings

logger = logging.getLogger(__name__)


class Scorer:
    def __init__(self, settings: Settings):
        self.settings = settings
        self.ledger = Ledger(settings)
        self.dispatcher = Dispatcher(app, self.ledger, self.settings)
        self.models = Registry.load(settings.models).names
        self._seen: set[int] = set()

    def run(self) -> None:
        """Work until a signal. Raises `ConfigurationError` where the ledger is not for this host."""
        check_home(self.settings)
        jobs.attach("score", self.score)
        Routine("sweep", self.settings.sweep, self._sweep).start()
        consume([SCORE_QUEUE], "solo", 1)

    def score(self, chunk_id: int) -> None:
        """Score every completion of an ended chunk."""
        rows = [
            ScoreRow(c.run, c.model, c.idx, c.sample, score_answer(answer_of(prompt, category, c)))
            for prompt, category, c in self.ledger.scores.of_chunk(chunk_id)
        ]
        self.ledger.scores.write(chunk_id, rows)

    def _sweep(self) -> None:
        for model in self.models:
            self.dispatcher.sweep(model)
        # Only what was unscored a sweep ago: the newest are on their way as messages.
        unscored = set(self.ledger.scores.unscored())
        for chunk_id in sorted(unscored & self._seen):
            self.dispatcher.request_scores(chunk_id)
        self._seen = unscored
        if discarded := self.ledger.runs.discard_abandoned():
            logger.warning("%d runs or additions were never handed in to their end; what there was is gone", discarded)
        self.ledger.batches.settle()
