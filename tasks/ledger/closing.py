"""How completions are counted and how chunks and runs come to an end, inside a transaction of the caller."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, delete, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tasks.errors import Conflict, NotFound
from tasks.ledger.database import now
from tasks.ledger.submission import sealed
from tasks.ledger.tables import chunk, completion, in_flight, prompt, run, run_model
from tasks.states import ChunkState, FinishReason, Outcome, RunState

CANCEL_GRACE = 4.0  # seconds in which the text of a cancelled run may still be handed in
SOME_CHUNKS = 500
WAITING = (ChunkState.PENDING, ChunkState.QUEUED)
STARTS = (RunState.PENDING, RunState.RUNNING)

# What is still being handed in and what was deleted is there for nobody.
is_there = and_(sealed, run.c.state != RunState.DELETED)


def add_counts(connection: Connection, run_id: str, model: str, numbers: Mapping[Outcome, int]) -> bool:
    """Add to the counts of a run's model, by outcome; tells whether nothing of it is pending. Negatives take away."""
    changes = {run_model.c[outcome.value]: run_model.c[outcome.value] + number for outcome, number in numbers.items()}
    of_model = (run_model.c.run == run_id) & (run_model.c.model == model)
    pending = run_model.c.total - run_model.c.done - run_model.c.failed - run_model.c.cancelled
    if any(numbers.values()):
        change = update(run_model).where(of_model).values(changes).returning(pending)
        return connection.execute(change).scalar_one() == 0
    return connection.execute(select(pending).where(of_model)).scalar_one() == 0


def may_write() -> ColumnElement[bool]:
    """A condition on a chunk: its run was not cancelled, or only just."""
    in_time = or_(run.c.state != RunState.CANCELLED, run.c.cancelled_at + literal(CANCEL_GRACE) > now())
    return select(run.c.id).where(run.c.id == chunk.c.run, in_time).exists()


def close_chunks(connection: Connection, ids: Collection[int], state: ChunkState, error: str | None = None) -> None:
    """End these chunks in ``state``.

    Every completion of theirs that is not there yet becomes a terminal row: an error with the text ``error``, or
    cancelled where there is none. The caller holds the chunks or takes those that nobody is writing to.
    """
    ended = {"state": state, "token": None, "lease_until": None}
    ordered = sorted(ids)
    for start in range(0, len(ordered), SOME_CHUNKS):
        some = ordered[start : start + SOME_CHUNKS]
        # The update comes first: it waits for a worker that is just writing, whose rows the insert below then sees.
        kept = (chunk.c.run, chunk.c.model, chunk.c.first_sample, chunk.c.samples)
        closed = connection.execute(
            update(chunk).where(chunk.c.id.in_(some)).values(ended).returning(chunk.c.id, *kept)
        ).all()
        connection.execute(delete(in_flight).where(in_flight.c.chunk.in_(some)))
        alike: dict[tuple[str, str, int, int], list[int]] = {}
        for row in closed:
            alike.setdefault((row.run, row.model, row.first_sample, row.samples), []).append(row.id)
        for (run_id, model, first, samples), chunks in sorted(alike.items()):
            _fill(connection, run_id, model, range(first, first + samples), chunks, error)


def _fill(
    connection: Connection, run_id: str, model: str, samples: range, chunks: list[int], error: str | None
) -> None:
    reason = FinishReason.ERROR if error else FinishReason.CANCELLED
    number = 0
    for sample in samples:
        values: dict[str, Any] = {
            "run": prompt.c.run,
            "model": literal(model),
            "idx": prompt.c.idx,
            "sample": literal(sample),
            "text": literal(""),
            "finish_reason": literal(reason.value),
            "error": literal(error),
            "characters": literal(0),
            "written": now(),
            "cold": literal(False),
            "attempt": chunk.c.attempt,
        }
        in_chunk = and_(
            prompt.c.run == chunk.c.run, prompt.c.idx >= chunk.c.first, prompt.c.idx < chunk.c.first + chunk.c.count
        )
        rows = select(*(value.label(name) for name, value in values.items())).select_from(chunk.join(prompt, in_chunk))
        insert: Any = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        statement = insert(completion).from_select(list(values), rows.where(chunk.c.id.in_(chunks)))
        counted = statement.on_conflict_do_nothing().execution_options(preserve_rowcount=True)
        number += connection.execute(counted).rowcount
    add_counts(connection, run_id, model, Counter({reason.outcome: number}))


def lock_run(connection: Connection, run_id: str) -> Any:
    """Hold the run's row until the transaction ends and return it; None where there is none.

    Not so firmly that completions, which refer to it, could not be written meanwhile.
    """
    query = select(run).where(run.c.id == run_id, is_there)
    return connection.execute(query.with_for_update(key_share=True)).first()


def existing(connection: Connection, run_id: str) -> Any:
    """Hold the run's row as `lock_run` does; raises `NotFound` where there is none."""
    found = lock_run(connection, run_id)
    if found is None:
        raise missing(run_id)
    return found


def missing(run_id: str) -> NotFound:
    return NotFound(f"There is no run {run_id!r}; it may have been deleted.")


def reopened(of_run: Any) -> dict[str, Any]:
    """The values of a run to which work is added: one that has ended goes on, another stays as it is.

    Raises `Conflict` while it is being cancelled.
    """
    state = RunState(of_run.state)
    if state is RunState.CANCELLED and of_run.finished is None:
        raise Conflict("This run is being cancelled just now; try again in a few seconds.")
    return {"state": RunState.RUNNING if state.is_final else state, "finished": None, "cancelled_at": None}


def is_complete() -> ColumnElement[bool]:
    """A condition on a run: nothing of it is pending and it was not closed yet."""
    ended = run_model.c.done + run_model.c.failed + run_model.c.cancelled
    pending = select(run_model.c.run).where(run_model.c.run == run.c.id, run_model.c.total > ended).exists()
    return and_(run.c.finished.is_(None), is_there, ~pending)


def finish_complete_runs(connection: Connection, which: ColumnElement[bool]) -> None:
    """Close those of the runs ``which`` of which nothing is pending."""
    complete = select(run.c.id).where(which, is_complete()).order_by(run.c.id)
    ids = list(connection.execute(complete.with_for_update(key_share=True)).scalars())
    if not ids:
        return
    # Looked at again: whoever held a run meanwhile may have added to it, and PostgreSQL's statement that waited for
    # the run's row still sees the counts as they were before.
    state = case((run.c.state == RunState.CANCELLED, RunState.CANCELLED.value), else_=RunState.DONE.value)
    connection.execute(update(run).where(run.c.id.in_(ids), is_complete()).values(finished=now(), state=state))
