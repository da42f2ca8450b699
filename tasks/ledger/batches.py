"""Batches of OpenAI's interface: a row says what was asked, the runs that name it are what comes of it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, literal, or_, select, update

from tasks.errors import NotFound, Unavailable
from tasks.ledger.closing import is_there
from tasks.ledger.control import Control
from tasks.ledger.database import Database, now
from tasks.ledger.records import Run
from tasks.ledger.runs import Runs
from tasks.ledger.tables import batch, completion, prompt, run
from tasks.states import FinishReason, Outcome, RunState

# A batch's row comes after its runs. What has none by then never gets one: whoever was making it has ended.
MAKING_SECONDS = 300.0
ORPHAN_SECONDS = 600.0

_ENDED_WELL = [reason for reason in FinishReason if reason.outcome is Outcome.DONE]


@dataclass(frozen=True)
class Batch:
    """A batch as it was asked for. Times are seconds since 1970; ``problems`` are those of a file that was refused.

    ``cancelling`` is when somebody wished its end.
    """

    id: str
    upload: str
    endpoint: str
    window: str
    owner: str
    metadata: Mapping[str, str] | None = None
    problems: Sequence[Mapping[str, Any]] | None = None
    created: float = 0.0
    expires: float = 0.0
    cancelling: float | None = None


@dataclass(frozen=True)
class LineCounts:
    """Lines of a batch's run, once a model: those answered, and those of which a sample failed or was cancelled."""

    total: int
    completed: int
    failed: int

    def __add__(self, other: "LineCounts") -> "LineCounts":
        return LineCounts(self.total + other.total, self.completed + other.completed, self.failed + other.failed)


class Batches:
    def __init__(self, database: Database, runs: Runs, control: Control):
        self.database, self.runs_of_ledger, self.control = database, runs, control

    def add(self, new: Batch, seconds: float, runs: int) -> Batch:
        """Store a batch whose ``runs`` runs are there already; it expires in so many seconds.

        One that is there stays as it is. Raises `Unavailable` where its runs are gone, or as old as those that are
        about to be removed.
        """
        values = asdict(new)
        for computed in ("created", "expires", "cancelling"):
            del values[computed]

        def add(connection: Connection) -> None:
            young = run.c.created > now() - literal(MAKING_SECONDS)
            made = select(func.count()).select_from(run).where(run.c.batch == new.id, is_there, young)
            there = select(batch.c.id).where(batch.c.id == new.id)
            if connection.execute(there).first() is None and connection.execute(made).scalar_one() != runs:
                raise Unavailable("Making the batch took too long; send it again.")
            self.database.insert_new(connection, batch, [values], created=now(), expires=now() + literal(seconds))

        self.database.transact(add, durable=True)
        return self.get(new.id)

    def get(self, batch_id: str, owner: str | None = None) -> Batch:
        """Raises `NotFound`."""
        query = select(batch).where(batch.c.id == batch_id)
        if owner is not None:
            query = query.where(batch.c.owner == owner)
        with self.database.read() as connection:
            found = connection.execute(query).first()
        if found is None:
            raise NotFound(f"There is no batch {batch_id!r}.", "batch_id")
        return Batch(**found._asdict())

    def newest(self, owner: str, after: str | None = None, limit: int = 20) -> list[Batch]:
        """Batches of an owner, newest first: those that come ``after`` the one with this id."""
        query = select(batch).where(batch.c.owner == owner).order_by(batch.c.created.desc(), batch.c.id.desc())
        if after is not None:
            last = self.get(after, owner)
            earlier = (batch.c.created == last.created) & (batch.c.id < last.id)
            query = query.where((batch.c.created < last.created) | earlier)
        with self.database.read() as connection:
            return [Batch(**row._asdict()) for row in connection.execute(query.limit(limit))]

    def runs(self, batch_id: str) -> list[Run]:
        """The runs of a batch, in the order in which they were made."""
        query = select(run.c.id).where(run.c.batch == batch_id, is_there).order_by(run.c.created, run.c.id)
        with self.database.read() as connection:
            ids = list(connection.execute(query).scalars())
        return [self.runs_of_ledger.get(run_id) for run_id in ids]

    def lines(self, found: Run) -> LineCounts:
        """How far the lines of a run are."""
        counts = [found.models[model] for model in found.computed]
        total = found.prompts * len(counts)
        if found.samples == 1:
            return LineCounts(total, sum(c.done for c in counts), sum(c.failed + c.cancelled for c in counts))
        bad = func.max(case((completion.c.finish_reason.in_(_ENDED_WELL), 0), else_=1)).label("bad")
        of_run = (completion.c.run == found.id) & completion.c.model.in_(found.computed)
        line = select(func.count().label("samples"), bad).where(of_run).group_by(completion.c.model, completion.c.idx)
        each = line.subquery()
        whole = (each.c.bad == 0) & (each.c.samples == found.samples)
        query = select(func.count().filter(whole), func.count().filter(each.c.bad == 1)).select_from(each)
        with self.database.read() as connection:
            completed, failed = connection.execute(query).one()
        return LineCounts(total, completed, failed)

    def custom_ids(self, run_id: str, first: int, count: int) -> dict[int, str]:
        """The ids that its owner gave to some prompts of a run, by idx."""
        within = (prompt.c.run == run_id) & (prompt.c.idx >= first) & (prompt.c.idx < first + count)
        with self.database.read() as connection:
            rows = connection.execute(select(prompt.c.idx, prompt.c.custom_id).where(within))
            return {row.idx: row.custom_id or "" for row in rows}

    def cancel(self, batch_id: str) -> None:
        """Note the wish that a batch ends; `settle` ends its runs."""
        wished = update(batch).where(batch.c.id == batch_id, batch.c.cancelling.is_(None)).values(cancelling=now())
        self.database.transact(lambda connection: connection.execute(wished), durable=True)

    def settle(self) -> int:
        """End the runs of batches that were cancelled or have expired, remove those that no batch has; returns both.

        To be repeated now and then: nothing else ends them.
        """
        overdue = self._open_runs(or_(batch.c.cancelling.is_not(None), batch.c.expires < now()))
        orphans = self._orphans()
        for end, ids in ((self.control.cancel, overdue), (self.control.delete, orphans)):
            for run_id in ids:
                with suppress(NotFound):  # somebody else was first
                    end(run_id)
        return len(overdue) + len(orphans)

    def _open_runs(self, of_batch: ColumnElement[bool]) -> list[str]:
        """Runs that go on, of the batches that are meant."""
        is_open = and_(run.c.finished.is_(None), is_there, run.c.state != RunState.CANCELLED)
        query = select(run.c.id).join(batch, batch.c.id == run.c.batch).where(is_open, of_batch)
        with self.database.read() as connection:
            return list(connection.execute(query).scalars())

    def _orphans(self) -> list[str]:
        """Runs of batches whose making ended before they had a row."""
        lonely = ~select(batch.c.id).where(batch.c.id == run.c.batch).exists()
        old = run.c.created < now() - literal(ORPHAN_SECONDS)
        query = select(run.c.id).where(run.c.batch.is_not(None), is_there, old, lonely)
        with self.database.read() as connection:
            return list(connection.execute(query).scalars())
