"""Chunks under lease: claim, renew, write, finish, release."""

import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from enum import Enum, auto
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, literal, or_, select, update

from tasks.ledger.closing import STARTS, WAITING, add_counts, finish_complete_runs, lock_run, may_write
from tasks.ledger.database import Database, now
from tasks.ledger.predecessors import ancestors_of, answers_to, waits_for_predecessor
from tasks.ledger.records import Claim, Completion, Environment, Rendered, prompt_of
from tasks.ledger.stored_answers import take_marks_away
from tasks.ledger.tables import chunk, completion, environment, prompt, rendering, run, run_model
from tasks.registry import entry_of
from tasks.states import ChunkState, RunKind, RunState

MAX_ATTEMPTS = 3
AGAIN_SECONDS = 1.0  # until a chunk is sent again that came too early, or to a worker of another model
COLUMNS = tuple(field.name for field in fields(Completion) if field.name not in ("written", "environment"))


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
        self._known: set[str] = set()

    def claim(self, chunk_id: int, worker: str, identity: str | None = None) -> Claim | None:
        """Take the lease on a chunk, or None when that is not possible.

        It is not where the chunk is taken or has ended, follows turns that are not answered yet, asks for another
        model than the ``identity`` of the worker's, or its run is paused, cancelled or deleted.
        """
        token = secrets.token_hex(8)
        return self.database.transact(lambda connection: self._claim(connection, chunk_id, worker, identity, token))

    def _claim(
        self, connection: Connection, chunk_id: int, worker: str, identity: str | None, token: str
    ) -> Claim | None:
        of_run = connection.execute(
            select(run).join(chunk, chunk.c.run == run.c.id).where(chunk.c.id == chunk_id)
        ).first()
        if of_run is None:
            return None
        if of_run.state == RunState.PENDING:
            # Whoever locks a run and a chunk of it takes the run first: two that wait for each other get nowhere.
            lock_run(connection, of_run.id)
        may_start = and_(
            select(run.c.id).where(run.c.id == chunk.c.run, run.c.state.in_(STARTS)).exists(),
            _of_model(identity),
            ~waits_for_predecessor(),
        )
        lease = {
            "state": ChunkState.LEASED,
            "token": token,
            "worker": worker,
            "attempt": chunk.c.attempt + 1,
            "claimed_at": now(),
            "lease_until": now() + literal(self.lease),
        }
        taken = connection.execute(
            update(chunk)
            .where(chunk.c.id == chunk_id, chunk.c.state.in_(WAITING), chunk.c.attempt < MAX_ATTEMPTS, may_start)
            .values(lease)
            .returning(chunk)
        ).first()
        # A transaction that is done again, because its first answer got lost, finds the lease that it took.
        taken = taken or connection.execute(select(chunk).where(chunk.c.id == chunk_id, chunk.c.token == token)).first()
        if taken is None:
            # It is sent again with whatever ends next, which may be what it waits for, or to another worker.
            not_now = or_(waits_for_predecessor(), ~_of_model(identity))
            early = (chunk.c.id == chunk_id) & (chunk.c.state == ChunkState.QUEUED) & not_now
            connection.execute(update(chunk).where(early).values({"state": ChunkState.PENDING} | _later()))
            return None
        claim = self._describe(connection, taken, of_run)
        if _is_answered(claim):
            return claim
        # The turn that it follows was put back by a retry after the chunk was taken.
        connection.execute(update(chunk).where(_held(claim)).values(_BACK | _later()))
        return None

    def _describe(self, connection: Connection, taken: Any, of_run: Any) -> Claim:
        if of_run.state == RunState.PENDING:
            waits = (run.c.id == taken.run) & (run.c.state == RunState.PENDING)
            connection.execute(update(run).where(waits).values(state=RunState.RUNNING))
        stop = taken.first + taken.count
        query = select(prompt).where(prompt.c.run == taken.run, prompt.c.idx >= taken.first, prompt.c.idx < stop)
        prompts = {row.idx: prompt_of(row) for row in connection.execute(query)}
        prompts |= ancestors_of(connection, taken.run, prompts.values())
        entry = connection.execute(
            select(run_model.c.entry).where(run_model.c.run == taken.run, run_model.c.model == taken.model)
        ).scalar()
        here = (completion.c.run == taken.run) & (completion.c.model == taken.model)
        done = connection.execute(
            select(completion.c.idx, completion.c.sample).where(
                here, completion.c.idx >= taken.first, completion.c.idx < stop
            )
        )
        written = {(row.idx, row.sample) for row in done}
        samples = range(taken.first_sample, taken.first_sample + taken.samples)
        every = [(idx, sample) for idx in range(taken.first, stop) for sample in samples]
        return Claim(
            chunk=taken.id,
            token=taken.token,
            run=taken.run,
            model=taken.model,
            kind=RunKind(taken.lane),
            attempt=taken.attempt,
            sampling=of_run.sampling,
            deadline=of_run.deadline,
            created=taken.created or of_run.created,
            enqueued=taken.queued_at or of_run.created,
            claimed=taken.claimed_at,
            prompts=prompts,
            missing=tuple(key for key in every if key not in written),
            entry=entry_of(entry) if entry else None,
            answers=answers_to(connection, taken.run, taken.model, prompts.values()),
            fresh=of_run.fresh or taken.lane == RunKind.ARENA,
        )

    def peek(self, chunk_id: int) -> tuple[RunKind, int] | None:
        """A chunk's lane and how many attempts at it have been made; None when it is not there (any more)."""
        with self.database.read() as connection:
            found = connection.execute(select(chunk.c.lane, chunk.c.attempt).where(chunk.c.id == chunk_id)).first()
            return (RunKind(found.lane), found.attempt) if found else None

    def fail(self, claim: Claim) -> None:
        """End a lease whose attempt has failed: the next sweep treats it as one that ran out."""
        over = update(chunk).where(_held(claim)).values(lease_until=0)
        self.database.transact(lambda connection: connection.execute(over))

    def look(self, claim: Claim) -> Lease:
        """What has become of a lease."""
        with self.database.read() as connection:
            return self._look(connection, claim)

    def renew(self, claim: Claim) -> Lease:
        """Prolong a lease. A cancelled run's lease is not prolonged: what remains is for handing in partial text."""
        return self.database.transact(lambda connection: self._renew(connection, claim))

    def _renew(self, connection: Connection, claim: Claim) -> Lease:
        lease = self._look(connection, claim)
        if lease is Lease.HELD:
            until = now() + literal(self.lease)
            connection.execute(update(chunk).where(_held(claim)).values(lease_until=until))
        return lease

    def _look(self, connection: Connection, claim: Claim) -> Lease:
        query = select(run.c.state).join(chunk, chunk.c.run == run.c.id).where(_held(claim))
        state = connection.execute(query).scalar()
        if state is None:
            return Lease.LOST
        return Lease.CANCELLED if state == RunState.CANCELLED else Lease.HELD

    def write(
        self,
        claim: Claim,
        completions: Sequence[Completion],
        made_with: Environment,
        last: bool = False,
        rendered: Mapping[tuple[int, int], Rendered] | None = None,
        settled: Collection[str] = (),
    ) -> bool:
        """Store completions under a lease; False, and nothing stored, when the lease is no longer held.

        ``made_with`` is the environment of those that name none. ``rendered`` are prompts as the model saw them, by
        (idx, sample); those that are there already stay. ``settled`` are cache keys that this chunk marked and does
        not compute any more.

        It is not when the run was cancelled more than `CANCEL_GRACE` seconds ago. A completion that is there already
        stays as it is and is counted once. ``last`` ends the chunk too, as `finish` does, in the same transaction.
        """
        complete = self.database.transact(
            lambda connection: self._write(connection, claim, completions, made_with, last, rendered or {}, settled)
        )
        if complete is None:
            return False
        self._known.add(made_with.id)
        if last and complete:
            self._finish_run(claim.run)
        return True

    def _write(
        self,
        connection: Connection,
        claim: Claim,
        completions: Sequence[Completion],
        made_with: Environment,
        last: bool,
        rendered: Mapping[tuple[int, int], Rendered],
        settled: Collection[str],
    ) -> bool | None:
        """Whether nothing of the run's model is pending any more; None when the lease is not held."""
        held = _held(claim) & may_write()
        if last:
            fence: Any = update(chunk).where(held).values(_ENDED).returning(chunk.c.id)
        else:
            fence = select(chunk.c.id).where(held).with_for_update()
        if connection.execute(fence).first() is None:
            return None
        if made_with.id not in self._known:
            facts = {"id": made_with.id, "facts": dict(made_with.facts)}
            self.database.insert_new(connection, environment, [facts])
        rows = [
            {name: getattr(c, name) for name in COLUMNS} | {"environment": c.environment or made_with.id}
            for c in completions
        ]
        new = self.database.insert_new(connection, completion, rows, written=now())
        shown = [
            {"run": claim.run, "model": claim.model, "idx": idx, "sample": sample}
            | {"text": prompt.text, "tokens": list(prompt.tokens)}
            for (idx, sample), prompt in rendered.items()
        ]
        self.database.insert_new(connection, rendering, shown)
        if not claim.fresh:
            take_marks_away(connection, claim, None if last else settled)
        reasons = {(c.idx, c.sample): c.finish_reason for c in completions}
        outcomes = Counter(reasons[row.idx, row.sample].outcome for row in new)
        return add_counts(connection, claim.run, claim.model, outcomes)

    def finish(self, claim: Claim) -> bool:
        """End a chunk whose completions are all written; closes its run when it was the last. False: lease lost."""

        def end(connection: Connection) -> bool:
            ended = connection.execute(update(chunk).where(_held(claim)).values(_ENDED)).rowcount
            if ended and not claim.fresh:
                take_marks_away(connection, claim, None)
            return bool(ended)

        ended = self.database.transact(end)
        if ended:
            self._finish_run(claim.run)
        return ended

    def _finish_run(self, run_id: str) -> None:
        # In a transaction after that of the last completion: of two chunks that end together one sees both counted.
        self.database.transact(lambda connection: finish_complete_runs(connection, run.c.id == run_id))

    def release(self, claims: Collection[Claim]) -> None:
        """Give leases back unfinished, as a worker does that stops: the attempt does not count."""

        def release_all(connection: Connection) -> None:
            for claim in sorted(claims, key=lambda claim: claim.chunk):
                connection.execute(update(chunk).where(_held(claim)).values(_BACK))

        self.database.transact(release_all)


def _of_model(identity: str | None) -> ColumnElement[bool]:
    """A condition on a chunk: its model was not given up, and is the one that a worker of this identity runs."""
    here = (run_model.c.run == chunk.c.run) & (run_model.c.model == chunk.c.model) & run_model.c.given_up.is_(None)
    if identity is not None:
        here &= or_(run_model.c.identity.is_(None), run_model.c.identity == identity)
    return select(run_model.c.run).where(here).exists()


def _is_answered(claim: Claim) -> bool:
    """Whether every turn that a claimed chunk follows is answered or a part of it."""
    there = {*claim.missing, *claim.answers}
    before = {(claim.prompts[idx].follows, sample) for idx, sample in claim.missing}
    return all(idx is None or (idx, sample) in there for idx, sample in before)


def _later() -> dict[str, Any]:
    return {"not_before": now() + literal(AGAIN_SECONDS)}


_BACK = {"state": ChunkState.PENDING, "token": None, "lease_until": None, "attempt": chunk.c.attempt - 1}
_ENDED = {"state": ChunkState.DONE, "token": None, "lease_until": None}


def _held(claim: Claim) -> ColumnElement[bool]:
    return (chunk.c.id == claim.chunk) & (chunk.c.token == claim.token) & (chunk.c.state == ChunkState.LEASED)
