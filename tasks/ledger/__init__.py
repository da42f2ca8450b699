"""The ledger: the only place that knows what was asked, what is being done and what came out."""

from sqlalchemy import text

from tasks.ledger.chunks import Chunks, Lease
from tasks.ledger.completions import Completions
from tasks.ledger.database import Database
from tasks.ledger.runs import Runs
from tasks.ledger.scores import Scores
from tasks.ledger.workers import Workers
from tasks.settings import Settings

__all__ = ["Lease", "Ledger"]


class Ledger:
    """All queries, by noun, over one database."""

    def __init__(self, settings: Settings):
        self.database = Database(settings.database_url)
        self.runs = Runs(self.database)
        self.chunks = Chunks(self.database, settings.lease)
        self.completions = Completions(self.database)
        self.scores = Scores(self.database)
        self.workers = Workers(self.database)

    def ping(self) -> None:
        """Raises `Unavailable` when the database does not answer or has no tables."""
        with self.database.read() as connection:
            connection.execute(text("SELECT 1 FROM run LIMIT 1")).all()

    def close(self) -> None:
        self.database.engine.dispose()
