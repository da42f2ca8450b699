"""Chunks: the outbox of work and the leases on it."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict
from enum import Enum, auto
from typing import Any

from sqlalchemy import Connection, case, delete, func, insert, literal, select, update

from tasks.ledger.closing import close_chunks, count_outcomes, finish_run_if_complete, lock_run
from tasks.ledger.database import Database, now
from tasks.ledger.records import Backlog, Claim, Completion, Dispatched, Environment, Swept, prompt_of
from tasks.ledger.tables import chunk, completion, environment, prompt, run, run_model
from tasks.states import ChunkState, RunKind, RunState

MAX_ATTEMPTS = 3
GIVEN_UP = "This prompt ended its worker or outlasted its lease {} times; it was given up."


class Lease(Enum):
    """What became of a lease when its worker asked."""

    HELD = auto()
    CANCELLED = auto()
    LOST = auto()


class Chunks:
    def __init__(self, database: Database, lease: float):
        """``lease``: seconds for which a claim holds."""
        self.database = database
        self.lease = lease

    def dispatch(self, model: str, capacity: dict[RunKind, int]) -> list[Dispatched]:
        """Mark chunks as queued until a lane has ``capacity`` of them queued or leased; the caller publishes them.

        Arena comes before bulk; within a lane, runs take turns.
        """
        taken: list[Dispatched] = []
        with self.database.write() as connection:
            outstanding = self._outstanding(connection, model)
            for lane in (RunKind.ARENA, RunKind.BULK):
                for _ in range(capacity[lane] - outstanding.get(lane, 0)):
                    chunk_id = self._take_one(connection, model, lane)
                    if chunk_id is None:
                        break
                    taken.append(Dispatched(chunk_id, lane))
        return taken

    def _outstanding(self, connection: Connection, model: str) -> dict[str, int]:
        out = [ChunkState.QUEUED, ChunkState.LEASED]
        query = select(chunk.c.lane, func.count()).where(chunk.c.model == model, chunk.c.state.in_(out))
        return {row[0]: row[1] for row in connection.execute(query.group_by(chunk.c.lane))}

    def _take_one(self, connection: Connection, model: str, lane: RunKind) -> int | None:
        waiting = (
            (chunk.c.model == model)
            & (chunk.c.state == ChunkState.PENDING)
            & (chunk.c.lane == lane)
            & (chunk.c.not_before <= now())
        )
        next_run = connection.execute(
            select(run_model.c.run)
            .join(run, run.c.id == run_model.c.run)
            .where(
                run_model.c.model == model, select(chunk.c.id).where(waiting, chunk.c.run == run_model.c.run).exists()
            )
            .where(run_model.c.total > run_model.c.done + run_model.c.failed + run_model.c.cancelled)
            .order_by(run_model.c.dispatched, run.c.created)
            .limit(1)
        ).scalar()
        if next_run is None:
            return None
        first = select(chunk.c.id).where(waiting, chunk.c.run == next_run).order_by(chunk.c.first).limit(1)
        chunk_id = connection.execute(
            update(chunk)
            .where(chunk.c.id == first.scalar_subquery(), chunk.c.state == ChunkState.PENDING)
            .values(state=ChunkState.QUEUED, queued_at=now())
            .returning(chunk.c.id)
        ).scalar()
        connection.execute(
            update(run_model).where(run_model.c.run == next_run, run_model.c.model == model).values(dispatched=now())
        )
        return chunk_id

    def claim(self, chunk_id: int, worker: str) -> Claim | None:
        """Take the lease on a chunk, or None when it is not to be had (taken, ended, or its run is cancelled)."""
        token = secrets.token_hex(8)
        with self.database.write() as connection:
            taken = connection.execute(
                update(chunk)
                .where(
                    chunk.c.id == chunk_id,
                    chunk.c.state.in_([ChunkState.QUEUED, ChunkState.PENDING]),
                    chunk.c.attempt < MAX_ATTEMPTS,
                )
                .values(
                    state=ChunkState.LEASED,
                    token=token,
                    worker=worker,
                    attempt=chunk.c.attempt + 1,
                    claimed_at=now(),
                    lease_until=now() + literal(self.lease),
                )
                .returning(chunk)
            ).first()
            if taken is None:
                return None
            connection.execute(
                update(run).where(run.c.id == taken.run, run.c.state == RunState.PENDING).values(state=RunState.RUNNING)
            )
            return self._describe(connection, taken)

    def _describe(self, connection: Connection, taken: Any) -> Claim:
        of_run = connection.execute(select(run).where(run.c.id == taken.run)).one()
        stop = taken.first + taken.count
        prompts = connection.execute(
            select(prompt).where(prompt.c.run == taken.run, prompt.c.idx >= taken.first, prompt.c.idx < stop)
        )
        here = (completion.c.run == taken.run) & (completion.c.model == taken.model)
        done = connection.execute(
            select(completion.c.idx, completion.c.sample).where(
                here, completion.c.idx >= taken.first, completion.c.idx < stop
            )
        )
        written = {(row.idx, row.sample) for row in done}
        every = [(idx, sample) for idx in range(taken.first, stop) for sample in range(of_run.samples)]
        return Claim(
            chunk=taken.id,
            token=taken.token,
            run=taken.run,
            model=taken.model,
            kind=RunKind(taken.lane),
            attempt=taken.attempt,
            sampling=of_run.sampling,
            created=of_run.created,
            enqueued=taken.queued_at or of_run.created,
            claimed=taken.claimed_at,
            prompts={row.idx: prompt_of(row) for row in prompts},
            missing=tuple(key for key in every if key not in written),
        )

    def failures(self, chunk_id: int) -> int:
        """How many attempts at a chunk have been made; 0 for one that is not there (any more)."""
        with self.database.read() as connection:
            return connection.execute(select(chunk.c.attempt).where(chunk.c.id == chunk_id)).scalar() or 0

    def fail(self, claim: Claim) -> None:
        """End a lease whose attempt has failed: the next sweep treats it as one that ran out."""
        with self.database.write() as connection:
            connection.execute(update(chunk).where(self._held(claim)).values(lease_until=0))

    def look(self, claim: Claim) -> Lease:
        """What has become of a lease."""
        with self.database.read() as connection:
            return self._look(connection, claim)

    def renew(self, claim: Claim) -> Lease:
        """Prolong a lease. A cancelled run's lease is not prolonged: what remains is for handing in partial text."""
        with self.database.write() as connection:
            lease = self._look(connection, claim)
            if lease is Lease.HELD:
                until = now() + literal(self.lease)
                connection.execute(update(chunk).where(self._held(claim)).values(lease_until=until))
            return lease

    def _look(self, connection: Connection, claim: Claim) -> Lease:
        query = select(run.c.state).join(chunk, chunk.c.run == run.c.id).where(self._held(claim))
        state = connection.execute(query).scalar()
        if state is None:
            return Lease.LOST
        return Lease.CANCELLED if state == RunState.CANCELLED else Lease.HELD

    def write(self, claim: Claim, completions: Sequence[Completion], made_with: Environment) -> bool:
        """Store completions under a lease; False, and nothing stored, when the lease is no longer held.

        A completion that is there already stays as it is and is counted once.
        """
        with self.database.write() as connection:
            if connection.execute(select(chunk.c.id).where(self._held(claim)).with_for_update()).first() is None:
                return False
            facts = {"id": made_with.id, "facts": dict(made_with.facts)}
            self.database.insert_new(connection, environment, [facts])
            rows = [asdict(c) | {"written": now(), "environment": made_with.id} for c in completions]
            new = self.database.insert_new(connection, completion, rows)
            reasons = {(c.idx, c.sample): c.finish_reason for c in completions}
            count_outcomes(connection, ((row.run, row.model, reasons[row.idx, row.sample].outcome) for row in new))
            return True

    def finish(self, claim: Claim) -> bool:
        """End a chunk whose completions are all written; closes its run when it was the last. False: lease lost."""
        with self.database.write() as connection:
            lock_run(connection, claim.run)
            ended = connection.execute(
                update(chunk).where(self._held(claim)).values(state=ChunkState.DONE, token=None, lease_until=None)
            ).rowcount
            finish_run_if_complete(connection, claim.run)
            return bool(ended)

    def release(self, claims: Collection[Claim]) -> None:
        """Give leases back unfinished, as a worker does that stops: the attempt does not count."""
        with self.database.write() as connection:
            for claim in claims:
                connection.execute(
                    update(chunk)
                    .where(self._held(claim))
                    .values(state=ChunkState.PENDING, token=None, lease_until=None, attempt=chunk.c.attempt - 1)
                )

    def _held(self, claim: Claim) -> Any:
        return (chunk.c.id == claim.chunk) & (chunk.c.token == claim.token) & (chunk.c.state == ChunkState.LEASED)

    def sweep(self, message_lost_after: float) -> Swept:
        """Put back chunks whose lease ran out or whose message got lost; give up those that failed too often."""
        with self.database.write() as connection:
            expired = (chunk.c.state == ChunkState.LEASED) & (chunk.c.lease_until < now())
            runs = connection.execute(select(chunk.c.run).where(expired).distinct()).scalars().all()
            for run_id in sorted(runs):
                lock_run(connection, run_id)
            cancelled = select(run.c.id).where(run.c.state == RunState.CANCELLED)
            closed = close_chunks(connection, expired & chunk.c.run.in_(cancelled), ChunkState.CANCELLED)
            given_up = close_chunks(
                connection,
                expired & (chunk.c.attempt >= MAX_ATTEMPTS),
                ChunkState.FAILED,
                GIVEN_UP.format(MAX_ATTEMPTS),
            )
            split = self._split(connection, expired & (chunk.c.attempt == MAX_ATTEMPTS - 1) & (chunk.c.count > 1))
            lost = (chunk.c.state == ChunkState.QUEUED) & (chunk.c.queued_at < now() - literal(message_lost_after))
            requeued = connection.execute(
                update(chunk)
                .where(expired | lost)
                .values(
                    state=ChunkState.PENDING,
                    token=None,
                    lease_until=None,
                    not_before=case((expired, now() + chunk.c.attempt), else_=0),
                )
            ).rowcount
            for run_id in runs:
                finish_run_if_complete(connection, run_id)
            return Swept(requeued, split, given_up, closed)

    def _split(self, connection: Connection, which: Any) -> int:
        """Replace chunks by one chunk a prompt, so that a prompt that ends its worker fails alone."""
        rows = connection.execute(delete(chunk).where(which).returning(chunk)).all()
        singles = [
            {
                "run": row.run,
                "model": row.model,
                "first": idx,
                "count": 1,
                "lane": row.lane,
                "state": ChunkState.PENDING,
                "attempt": row.attempt,
            }
            for row in rows
            for idx in range(row.first, row.first + row.count)
        ]
        if singles:
            connection.execute(insert(chunk), singles)
        return len(rows)

    def backlog(self) -> dict[str, Backlog]:
        """Waiting chunks of every model that has any."""
        waiting = [ChunkState.PENDING, ChunkState.QUEUED, ChunkState.LEASED]
        query = (
            select(chunk.c.model, chunk.c.state, func.count())
            .where(chunk.c.state.in_(waiting))
            .group_by(chunk.c.model, chunk.c.state)
        )
        found: dict[str, dict[str, int]] = {}
        with self.database.read() as connection:
            for model, state, number in connection.execute(query):
                found.setdefault(model, {})[state] = number
        return {model: Backlog(**numbers) for model, numbers in found.items()}

    def unscored(self, limit: int = 100) -> list[int]:
        """Ended chunks whose completions have no scores yet."""
        ended = [ChunkState.DONE, ChunkState.FAILED, ChunkState.CANCELLED]
        query = select(chunk.c.id).where(~chunk.c.scored, chunk.c.state.in_(ended)).order_by(chunk.c.id).limit(limit)
        with self.database.read() as connection:
            return list(connection.execute(query).scalars())
