"""Run control: pause, resume, cancel, retry what failed, change the priority, delete."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, tuple_, update

from tasks.errors import Conflict, NotFound
from tasks.ledger.closing import (
    WAITING,
    add_counts,
    close_chunks,
    existing,
    finish_complete_runs,
    is_there,
    lock_run,
    missing,
)
from tasks.ledger.columns import growing
from tasks.ledger.database import Database, now
from tasks.ledger.planning import lane_of
from tasks.ledger.purging import purge_portion
from tasks.ledger.tables import chunk, completion, prompt, rendering, run, run_model, score, worker
from tasks.ledger.workers import Workers
from tasks.states import ChunkState, FinishReason, Outcome, RunKind, RunState

AT_ONCE = 500  # chunks that a cancel closes itself; the sweep closes the rest
RETRIED_CHUNK = 8
RETRIED_AT_ONCE = 5000
LARGEST_CHUNK = 4096


class Control:
    """Every method raises `NotFound` for a run that is not there and `Conflict` where its state forbids it."""

    def __init__(self, database: Database, workers: Workers):
        self.database = database
        self.workers = workers

    def pause(self, run_id: str) -> None:
        """Start nothing more of a run; what a worker holds is done to its end."""

        def pause(connection: Connection) -> None:
            of_run = _open_run(connection, run_id, "paused")
            if of_run.state != RunState.PAUSED:
                _set_state(connection, run_id, RunState.PAUSED)
                queued = (chunk.c.run == run_id) & (chunk.c.state == ChunkState.QUEUED)
                connection.execute(update(chunk).where(queued).values(state=ChunkState.PENDING))

        self.database.transact(pause, durable=True)

    def resume(self, run_id: str) -> None:
        """Let a paused run go on; one that is not paused stays as it is."""

        def resume(connection: Connection) -> None:
            if _open_run(connection, run_id, "resumed").state == RunState.PAUSED:
                started = select(chunk.c.id).where(chunk.c.run == run_id, chunk.c.claimed_at.is_not(None)).limit(1)
                begun = connection.execute(started).first() is not None
                _set_state(connection, run_id, RunState.RUNNING if begun else RunState.PENDING)

        self.database.transact(resume, durable=True)

    def cancel(self, run_id: str) -> None:
        """End a run: nothing more is started, what a worker holds is handed in within `CANCEL_GRACE` seconds.

        A run that has ended stays as it is. Of a huge run most is closed by the sweep.
        """

        def cancel(connection: Connection) -> None:
            of_run = existing(connection, run_id)
            if of_run.finished is not None or RunState(of_run.state).is_final:
                return
            connection.execute(
                update(run).where(run.c.id == run_id).values(state=RunState.CANCELLED, cancelled_at=now())
            )
            # Nobody hands in what a dead worker holds.
            alive = select(worker.c.id).where(self.workers.is_fresh())
            orphaned = (chunk.c.state == ChunkState.LEASED) & chunk.c.worker.not_in(alive)
            query = select(chunk.c.id).where(chunk.c.run == run_id, or_(chunk.c.state.in_(WAITING), orphaned))
            # A chunk that is locked is being claimed or sent just now; the sweep closes it.
            some = connection.execute(query.limit(AT_ONCE).with_for_update(skip_locked=True))
            close_chunks(connection, list(some.scalars()), ChunkState.CANCELLED)
            finish_complete_runs(connection, run.c.id == run_id)

        self.database.transact(cancel, durable=True)

    def give_up(self, run_id: str, model: str, reason: str) -> None:
        """Let what is pending of a run's model fail with ``reason``; what a live worker holds is done to its end.

        Of a huge run most is closed by the sweep.
        """

        def give_up(connection: Connection) -> None:
            _open_run(connection, run_id, "given up")
            here = (run_model.c.run == run_id) & (run_model.c.model == model)
            if not connection.execute(update(run_model).where(here).values(given_up=reason)).rowcount:
                raise NotFound(f"This run has no model {model!r}.")
            alive = select(worker.c.id).where(self.workers.is_fresh())
            orphaned = (chunk.c.state == ChunkState.LEASED) & chunk.c.worker.not_in(alive)
            of_model = (chunk.c.run == run_id) & (chunk.c.model == model)
            query = select(chunk.c.id).where(of_model, or_(chunk.c.state.in_(WAITING), orphaned))
            some = connection.execute(query.limit(AT_ONCE).with_for_update(skip_locked=True))
            close_chunks(connection, list(some.scalars()), ChunkState.FAILED, reason)
            finish_complete_runs(connection, run.c.id == run_id)

        self.database.transact(give_up, durable=True)

    def retry(self, run_id: str) -> int:
        """Put what failed to the models once more; returns how many completions those are.

        Attempts are counted anew. What failed in a chunk that has not ended stays as it is: its end must come first.
        So does what failed elsewhere: columns that were imported or merged in. Raises `Conflict` for a cancelled run.
        """
        total, more = 0, True
        while more:
            number, more = self.database.transact(lambda connection: self._retry_some(connection, run_id), durable=True)
            total += number
        return total

    def _retry_some(self, connection: Connection, run_id: str) -> tuple[int, bool]:
        """How many completions were put back, and whether there may be more."""
        of_run = existing(connection, run_id)
        if of_run.state == RunState.CANCELLED:
            raise Conflict("This run was cancelled; what is left of it is not done again. Submit its prompts anew.")
        failed = [reason for reason in FinishReason if reason.outcome is Outcome.FAILED]
        key = (completion.c.model, completion.c.idx, completion.c.sample)
        in_open_chunk = and_(
            chunk.c.run == completion.c.run,
            chunk.c.model == completion.c.model,
            chunk.c.first.between(completion.c.idx - LARGEST_CHUNK, completion.c.idx),
            chunk.c.first + chunk.c.count > completion.c.idx,
            chunk.c.first_sample <= completion.c.sample,
            chunk.c.first_sample + chunk.c.samples > completion.c.sample,
            chunk.c.state.in_([*WAITING, ChunkState.LEASED]),
        )
        query = select(*key).where(
            completion.c.run == run_id,
            completion.c.model.in_(growing(connection, run_id)),
            completion.c.finish_reason.in_(failed),
            ~select(chunk.c.id).where(in_open_chunk).exists(),
        )
        rows = [tuple(row) for row in connection.execute(query.order_by(*key).limit(RETRIED_AT_ONCE))]
        if not rows:
            return 0, False
        more = len(rows) == RETRIED_AT_ONCE
        # Samples of a prompt stay together: those left for later would lie in a chunk that has not ended.
        whole = [row for row in rows if row[:2] != rows[-1][:2]] if more else rows
        rows = whole or rows
        for table in (score, rendering, completion):
            columns = tuple_(table.c.model, table.c.idx, table.c.sample)
            for start in range(0, len(rows), 1000):
                here = (table.c.run == run_id) & columns.in_(rows[start : start + 1000])
                connection.execute(delete(table).where(here))
        for model, number in Counter(row[0] for row in rows).items():
            add_counts(connection, run_id, model, {Outcome.FAILED: -number})
        lane = _lane_of(connection, of_run, len({idx for _, idx, _ in rows}))
        new = {"run": run_id, "lane": lane, "state": ChunkState.PENDING}
        chunks = [new | part for part in _parts(_spans(rows), _following(connection, run_id, rows))]
        connection.execute(insert(chunk).values(created=now()), chunks)
        again = (run_model.c.run == run_id) & run_model.c.model.in_({row[0] for row in rows})
        connection.execute(update(run_model).where(again).values(given_up=None))
        if of_run.finished is not None:
            connection.execute(update(run).where(run.c.id == run_id).values(finished=None, state=RunState.PENDING))
        return len(rows), more

    def prioritise(self, run_id: str, priority: int) -> None:
        """Let a run go before (above 0) or after others of its kind."""

        def prioritise(connection: Connection) -> None:
            _open_run(connection, run_id, "given another priority")
            connection.execute(update(run).where(run.c.id == run_id).values(priority=priority))

        self.database.transact(prioritise, durable=True)

    def delete(self, run_id: str) -> None:
        """Remove a run with all its rows, whatever its state; the rows of a large one go in portions, by sweeps."""

        def remove(connection: Connection) -> None:
            if lock_run(connection, run_id) is None:
                return
            gone = {"state": RunState.DELETED, "finished": None, "idempotency_key": None}
            connection.execute(update(run).where(run.c.id == run_id).values(gone))
            purge_portion(connection, run_id)

        with self.database.read() as connection:
            there = select(run.c.id).where(run.c.id == run_id, is_there)
            if connection.execute(there).first() is None:
                raise missing(run_id)
        self.database.transact(remove, durable=True)


def _open_run(connection: Connection, run_id: str, wish: str) -> Any:
    found = existing(connection, run_id)
    if RunState(found.state).is_final:
        raise Conflict(f"This run has ended, so it cannot be {wish}.")
    return found


def _set_state(connection: Connection, run_id: str, state: RunState) -> None:
    connection.execute(update(run).where(run.c.id == run_id).values(state=state))


def _following(connection: Connection, run_id: str, rows: Sequence[tuple[Any, ...]]) -> set[int]:
    """Those that follow others of the prompts of a run that lie between those of ``rows``."""
    numbers = [idx for _, idx, _ in rows]
    between = prompt.c.idx.between(min(numbers), max(numbers))
    follows = select(prompt.c.idx).where(prompt.c.run == run_id, between, prompt.c.follows.is_not(None))
    return set(connection.execute(follows).scalars())


def _lane_of(connection: Connection, of_run: Any, prompts: int) -> RunKind:
    """The lane in which so many prompts are done again: that of files only where a file was added to the run."""
    files = select(chunk.c.id).where(chunk.c.run == of_run.id, chunk.c.lane == RunKind.BULK)
    is_file = connection.execute(files.limit(1)).first() is not None
    return lane_of(of_run, prompts) if is_file else RunKind(of_run.kind)


def _spans(rows: Sequence[tuple[Any, ...]]) -> list[tuple[str, int, int, int]]:
    """Completions (model, idx, sample), in order, as (model, first sample, samples, idx): adjoining samples in one."""
    spans: list[tuple[str, int, int, int]] = []
    for model, idx, sample in rows:
        before = spans[-1] if spans else None
        if before and (before[0], before[3], before[1] + before[2]) == (model, idx, sample):
            spans[-1] = (model, before[1], before[2] + 1, idx)
        else:
            spans.append((model, sample, 1, idx))
    return sorted(spans)


def _parts(spans: Iterable[tuple[str, int, int, int]], following: Collection[int]) -> list[dict[str, Any]]:
    """Neighbouring prompts of a model together, at most `RETRIED_CHUNK` in a chunk; turns of a conversation always."""
    parts: list[dict[str, Any]] = []
    for model, first, samples, idx in spans:
        same = {"model": model, "first_sample": first, "samples": samples}
        last = parts[-1] if parts else None
        joins = last and last.items() >= same.items() and last["first"] + last["count"] == idx
        if last and joins and last["count"] < (LARGEST_CHUNK if idx in following else RETRIED_CHUNK):
            last["count"] += 1
        else:
            parts.append(same | {"first": idx, "count": 1})
    return parts
