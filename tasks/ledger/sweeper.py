"""The sweep: puts back lost work, gives up what fails again and again, and clears up after run control."""

import time
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, literal, or_, select, update

from tasks.ledger.chunks import MAX_ATTEMPTS
from tasks.ledger.closing import CANCEL_GRACE, WAITING, close_chunks, finish_complete_runs, is_complete
from tasks.ledger.database import Database, now
from tasks.ledger.purging import is_deleted, purge_some
from tasks.ledger.records import Swept
from tasks.ledger.tables import chunk, completion, prompt, run, run_model
from tasks.states import ChunkState, RunState

GIVEN_UP = "This prompt ended its worker or outlasted its lease {} times; it was given up."
SOME_CHUNKS = 500
SOME_COMPLETIONS = 5000
CLEAR_SECONDS = 2.0  # how long one sweep clears up; the next goes on
SWEEP_LOCK = 7_061_001
KEPT = ("run", "model", "lane", "attempt", "first_sample", "samples", "created")  # of a chunk that is split


class Fate(Enum):
    """What becomes of a chunk whose lease ran out."""

    COMPLETE = auto()  # its completions are all there: only its end was not written
    CANCELLED = auto()
    GIVEN_UP = auto()
    SPLIT = auto()
    BACK = auto()


def fate_of(attempt: int, prompts: int, missing: int, run_state: RunState) -> Fate:
    """The fate of a chunk of ``prompts`` prompts whose ``attempt``-th lease ran out with ``missing`` completions."""
    if missing == 0:
        return Fate.COMPLETE
    if run_state is RunState.CANCELLED:
        return Fate.CANCELLED
    if attempt >= MAX_ATTEMPTS:
        return Fate.GIVEN_UP
    return Fate.SPLIT if attempt == MAX_ATTEMPTS - 1 and prompts > 1 else Fate.BACK


class Sweeper:
    def __init__(self, database: Database):
        self.database = database

    def sweep(self, message_lost_after: float) -> Swept:
        """Put right what got lost: leases that ran out, messages sent more than that many seconds ago, ends of runs."""
        lost = (chunk.c.state == ChunkState.QUEUED) & (chunk.c.queued_at < now() - literal(message_lost_after))
        swept = Swept()
        if self._is_any(chunk, or_(_expired(), lost)):
            swept = self.database.transact(lambda connection: self._put_back(connection, lost))
        closed, purged = self._clear_up()
        # In a transaction of its own: whoever locks a run and a chunk of it takes the run first.
        if self._is_any(run, is_complete()):
            self.database.transact(lambda connection: finish_complete_runs(connection, literal(True)))
        return Swept(swept.requeued, swept.split, swept.given_up, swept.closed + closed, purged)

    def _is_any(self, table: Any, which: ColumnElement[bool]) -> bool:
        with self.database.read() as connection:
            return connection.execute(select(literal(1)).select_from(table).where(which).limit(1)).first() is not None

    def _put_back(self, connection: Connection, lost: ColumnElement[bool]) -> Swept:
        if not self.database.try_lock(connection, SWEEP_LOCK):
            return Swept()
        fates: dict[Fate, list[Any]] = {fate: [] for fate in Fate}
        overdue: Sequence[Any] = connection.execute(_overdue()).all()
        for row in overdue:
            missing = row.count * row.samples - row.written
            fates[fate_of(row.attempt, row.count, missing, RunState(row.run_state))].append(row)
        ids = {fate: [row.id for row in rows] for fate, rows in fates.items()}
        close_chunks(connection, ids[Fate.COMPLETE], ChunkState.DONE)
        close_chunks(connection, ids[Fate.CANCELLED], ChunkState.CANCELLED)
        close_chunks(connection, ids[Fate.GIVEN_UP], ChunkState.FAILED, GIVEN_UP.format(MAX_ATTEMPTS))
        self._split(connection, fates[Fate.SPLIT])
        back = {"state": ChunkState.PENDING, "token": None, "lease_until": None}
        if ids[Fate.BACK]:
            later = now() + chunk.c.attempt
            connection.execute(update(chunk).where(chunk.c.id.in_(ids[Fate.BACK])).values(back | {"not_before": later}))
        requeued = connection.execute(update(chunk).where(lost).values(back)).rowcount
        closed = len(ids[Fate.COMPLETE]) + len(ids[Fate.CANCELLED])
        return Swept(requeued + len(ids[Fate.BACK]), len(ids[Fate.SPLIT]), len(ids[Fate.GIVEN_UP]), closed)

    def _split(self, connection: Connection, rows: Sequence[Any]) -> None:
        """Replace chunks by one for each conversation not done, so that one that ends its worker fails alone."""
        for row in rows:
            in_chunk = (prompt.c.run == row.run) & (prompt.c.idx >= row.first) & (prompt.c.idx < row.first + row.count)
            same = (completion.c.run == prompt.c.run) & (completion.c.idx == prompt.c.idx)
            same &= completion.c.sample.between(row.first_sample, row.first_sample + row.samples - 1)
            written = select(func.count()).select_from(completion).where(same, completion.c.model == row.model)
            missing = select(prompt.c.idx, prompt.c.follows).where(in_chunk, written.scalar_subquery() < row.samples)
            kept = {name: getattr(row, name) for name in KEPT}
            parts: list[dict[str, Any]] = []
            for idx, follows in connection.execute(missing.order_by(prompt.c.idx)):
                if parts and follows is not None and follows >= parts[-1]["first"]:
                    parts[-1]["count"] = idx + 1 - parts[-1]["first"]
                else:
                    parts.append(kept | {"first": idx, "count": 1, "state": ChunkState.PENDING})
            connection.execute(delete(chunk).where(chunk.c.id == row.id))
            connection.execute(insert(chunk), parts)

    def _clear_up(self) -> tuple[int, int]:
        """Close what cancelled runs left waiting and remove what deleted runs left behind, in small portions."""
        closed = purged = 0
        until = time.monotonic() + CLEAR_SECONDS
        while time.monotonic() < until:
            some = self.database.transact(close_cancelled) if self._is_any(run, _cancelled()) else 0
            some += self.database.transact(close_given_up) if self._is_any(run_model, _given_up()) else 0
            gone = self.database.transact(purge_some) if self._is_any(run, is_deleted) else None
            if not some and gone is None:
                break
            closed += some
            purged += bool(gone)
        return closed, purged


def close_cancelled(connection: Connection) -> int:
    """Close some chunks that nobody will start any more; returns how many."""
    query = (
        select(chunk.c.id, chunk.c.count * chunk.c.samples)
        .join(run, run.c.id == chunk.c.run)
        .where(_cancelled(), chunk.c.state.in_(WAITING))
        .limit(SOME_CHUNKS)
        .with_for_update(skip_locked=True, of=chunk)
    )
    chosen: list[int] = []
    completions = 0
    for chunk_id, number in connection.execute(query):
        if completions < SOME_COMPLETIONS:
            chosen.append(chunk_id)
            completions += number
    close_chunks(connection, chosen, ChunkState.CANCELLED)
    return len(chosen)


def close_given_up(connection: Connection) -> int:
    """Close some chunks of models that were given up, each with the reason; returns how many."""
    of_chunk = (run_model.c.run == chunk.c.run) & (run_model.c.model == chunk.c.model)
    query = (
        select(chunk.c.id, run_model.c.given_up)
        .join(run_model, of_chunk)
        .where(_given_up(), chunk.c.state.in_(WAITING))
        .limit(SOME_CHUNKS // 10)
        .with_for_update(skip_locked=True, of=chunk)
    )
    by_reason: dict[str, list[int]] = {}
    for chunk_id, reason in connection.execute(query):
        by_reason.setdefault(reason, []).append(chunk_id)
    for reason, ids in by_reason.items():
        close_chunks(connection, ids, ChunkState.FAILED, reason)
    return sum(map(len, by_reason.values()))


def _given_up() -> ColumnElement[bool]:
    """A condition on a run's model: it was given up, and something of it is still to be closed."""
    ended = run_model.c.done + run_model.c.failed + run_model.c.cancelled
    return run_model.c.given_up.is_not(None) & (run_model.c.total > ended)


def _cancelled() -> ColumnElement[bool]:
    return and_(run.c.finished.is_(None), run.c.state == RunState.CANCELLED)


def _expired() -> ColumnElement[bool]:
    """Chunks whose lease ran out, or was for a run that was cancelled too long ago to hand anything in."""
    cancelled = select(run.c.id).where(_cancelled(), run.c.cancelled_at + literal(CANCEL_GRACE) < now())
    return (chunk.c.state == ChunkState.LEASED) & or_(chunk.c.lease_until < now(), chunk.c.run.in_(cancelled))


def _overdue() -> Any:
    in_chunk = and_(
        completion.c.run == chunk.c.run,
        completion.c.model == chunk.c.model,
        completion.c.idx >= chunk.c.first,
        completion.c.idx < chunk.c.first + chunk.c.count,
        completion.c.sample >= chunk.c.first_sample,
        completion.c.sample < chunk.c.first_sample + chunk.c.samples,
    )
    written = select(func.count()).select_from(completion).where(in_chunk).scalar_subquery().label("written")
    return (
        select(chunk, run.c.state.label("run_state"), written)
        .join(run, run.c.id == chunk.c.run)
        .where(_expired())
        .order_by(chunk.c.id)
        .limit(SOME_CHUNKS)
        .with_for_update(skip_locked=True, of=chunk)
    )
