"""How completions are counted and how chunks and runs come to an end, inside a transaction of the caller."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tasks.ledger.database import now
from tasks.ledger.tables import chunk, completion, prompt, run, run_model
from tasks.states import ChunkState, FinishReason, Outcome, RunState


def count_outcomes(connection: Connection, outcomes: Iterable[tuple[str, str, Outcome]]) -> None:
    """Add one to the counts of (run, model, outcome), for each that is given."""
    for (run_id, model, outcome), number in sorted(Counter(outcomes).items()):
        add_count(connection, run_id, model, outcome, number)


def add_count(connection: Connection, run_id: str, model: str, outcome: Outcome, number: int) -> None:
    column = run_model.c[outcome.value]
    connection.execute(
        update(run_model).where(run_model.c.run == run_id, run_model.c.model == model).values({column: column + number})
    )


def close_chunks(
    connection: Connection, which: ColumnElement[bool], state: ChunkState, error: str | None = None
) -> int:
    """End the chunks ``which`` in ``state``; returns how many there were.

    Every completion of theirs that is not there yet becomes a terminal row: an error with the text ``error``, or
    cancelled where there is none.
    """
    # The update comes first: it waits for a worker that is just writing, whose rows the insert below then sees.
    closed = connection.execute(
        update(chunk)
        .where(which)
        .values(state=state, token=None, lease_until=None)
        .returning(chunk.c.id, chunk.c.run, chunk.c.model)
    ).all()
    by_run_model: dict[tuple[str, str], list[int]] = {}
    for row in closed:
        by_run_model.setdefault((row.run, row.model), []).append(row.id)
    for (run_id, model), ids in by_run_model.items():
        samples = connection.execute(select(run.c.samples).where(run.c.id == run_id)).scalar_one()
        for start in range(0, len(ids), 500):
            for sample in range(samples):
                _fill(connection, run_id, model, ids[start : start + 500], sample, error)
    return len(closed)


def _fill(connection: Connection, run_id: str, model: str, chunks: list[int], sample: int, error: str | None) -> None:
    reason = FinishReason.ERROR if error else FinishReason.CANCELLED
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
    number = connection.execute(counted).rowcount
    add_count(connection, run_id, model, reason.outcome, number)


def lock_run(connection: Connection, run_id: str) -> None:
    """Hold the run's row until the transaction ends. Whoever locks run and chunk takes the run first."""
    connection.execute(select(run.c.id).where(run.c.id == run_id).with_for_update()).all()


def finish_run_if_complete(connection: Connection, run_id: str) -> None:
    """Close the run when nothing of it is pending."""
    ended = run_model.c.done + run_model.c.failed + run_model.c.cancelled
    pending = select(func.sum(run_model.c.total - ended)).where(run_model.c.run == run_id).scalar_subquery()
    complete = and_(run.c.id == run_id, run.c.finished.is_(None), pending == 0)
    connection.execute(update(run).where(complete).values(finished=now()))
    connection.execute(
        update(run)
        .where(run.c.id == run_id, run.c.finished.is_not(None), run.c.state != RunState.CANCELLED)
        .values(state=RunState.DONE)
    )
