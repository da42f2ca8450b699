"""The ledger: the only place that knows what was asked, what is being done and what came out."""

from sqlalchemy import select, text

from tasks.ledger.batches import Batches
from tasks.ledger.chunks import MAX_ATTEMPTS, Chunks, Lease
from tasks.ledger.completions import Completions
from tasks.ledger.control import Control
from tasks.ledger.database import Database, now
from tasks.ledger.growth import Growth
from tasks.ledger.outbox import Outbox
from tasks.ledger.results import Results
from tasks.ledger.runs import Runs
from tasks.ledger.scores import Scores
from tasks.ledger.sets import Sets
from tasks.ledger.speeds import Speeds
from tasks.ledger.stored_answers import StoredAnswers
from tasks.ledger.sweeper import Sweeper
from tasks.ledger.uploads import Uploads
from tasks.ledger.waits import Waits
from tasks.ledger.workers import Workers
from tasks.settings import Settings

__all__ = ["MAX_ATTEMPTS", "Lease", "Ledger"]

BEATS_MISSED = 3  # after which a worker is taken for dead


class Ledger:
    """All queries, by noun, over one database."""

    def __init__(self, settings: Settings):
        self.database = Database(settings.database_url)
        self.runs = Runs(self.database)
        self.outbox = Outbox(self.database)
        self.chunks = Chunks(self.database, settings.lease)
        self.sweeper = Sweeper(self.database)
        self.completions = Completions(self.database)
        self.results = Results(self.database)
        self.scores = Scores(self.database)
        self.workers = Workers(self.database, fresh=BEATS_MISSED * settings.sweep)
        self.control = Control(self.database, self.workers)
        self.waits = Waits(self.workers)
        self.growth = Growth(self.database)
        self.sets = Sets(self.database)
        self.uploads = Uploads(self.database)
        self.stored_answers = StoredAnswers(self.database)
        self.speeds = Speeds(self.database)
        self.batches = Batches(self.database, self.runs, self.control)

    def ping(self) -> None:
        """Raises `Unavailable` when the database does not answer or has no tables."""
        with self.database.read() as connection:
            connection.execute(text("SELECT 1 FROM run LIMIT 1")).all()

    def clock(self) -> float:
        """Seconds since 1970 by the database's clock: the one that every process shares."""
        with self.database.read() as connection:
            return connection.execute(select(now())).scalar_one()

    def close(self) -> None:
        self.database.engine.dispose()
