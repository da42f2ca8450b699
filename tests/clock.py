"""Lets time pass for a ledger: everything it remembers of time moves into the past, its clock stays the database's."""

from sqlalchemy import Column, update

from tasks.ledger import Ledger
from tasks.ledger.tables import chunk, run, worker

POINTS: tuple[Column[float], ...] = (
    chunk.c.lease_until,
    chunk.c.queued_at,
    chunk.c.claimed_at,
    chunk.c.not_before,
    run.c.created,
    run.c.finished,
    run.c.cancelled_at,
    worker.c.heartbeat,
)


def pass_time(ledger: Ledger, seconds: float) -> None:
    """Make every lease, message, backoff and heartbeat ``seconds`` older."""
    with ledger.database.write() as connection:
        for point in POINTS:
            connection.execute(update(point.table).values({point: point - seconds}))
