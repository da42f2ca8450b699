"""Runs and their prompts: submit, read, cancel."""

import hashlib
import itertools
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, case, func, insert, literal, select, update

from tasks.errors import Conflict, InvalidInput, NotFound
from tasks.ledger.closing import close_chunks, finish_run_if_complete
from tasks.ledger.database import Database, now
from tasks.ledger.records import Counts, NewPrompt, NewRun, Prompt, Run, prompt_of
from tasks.ledger.tables import chunk, prompt, run, run_model
from tasks.states import ChunkState, RunKind, RunState

T = TypeVar("T")
BATCH = 1000
CANCEL_GRACE = 4.0


class Runs:
    def __init__(self, database: Database):
        self.database = database

    def submit(self, new: NewRun, prompts: Iterable[NewPrompt]) -> tuple[Run, bool]:
        """Store a run, its prompts and its chunks in one transaction; returns it and whether it is new.

        A repeated idempotency key of the same owner returns the first run, or raises `Conflict` where the request
        differs. ``prompts`` is read once, in batches. Raises `InvalidInput` when there is none.
        """
        run_id = secrets.token_hex(8)
        digest = hashlib.sha256(
            json.dumps([new.kind, sorted(new.chunk_sizes), dict(new.sampling), new.samples], sort_keys=True).encode()
        )
        with self.database.write() as connection:
            total = 0
            values = {
                "id": run_id,
                "kind": new.kind,
                "state": RunState.PENDING,
                "owner": new.owner,
                "title": new.title[:200],
                "sampling": dict(new.sampling) | {"seed": new.sampling.get("seed", secrets.randbelow(2**31))},
                "samples": new.samples,
                "prompts": 0,
                "created": now(),
                "fingerprint": "",
            }
            connection.execute(insert(run).values(values))
            for batch in _batches(prompts, BATCH):
                rows = [
                    {
                        "run": run_id,
                        "idx": total + i,
                        "text": p.text,
                        "category": p.category,
                        "reference": p.reference,
                        "system": p.system,
                        "metadata": dict(p.metadata) if p.metadata else None,
                    }
                    for i, p in enumerate(batch)
                ]
                for row in rows:
                    digest.update(json.dumps([row["text"], row["system"]], ensure_ascii=False).encode() + b"\n")
                connection.execute(insert(prompt), rows)
                total += len(rows)
            if not total:
                raise InvalidInput("There is no prompt; send at least one.", "prompts")
            repeated = self._repeated(connection, new, digest.hexdigest())
            if repeated:
                connection.rollback()
                return self.get(repeated), False
            connection.execute(
                update(run)
                .where(run.c.id == run_id)
                .values(prompts=total, fingerprint=digest.hexdigest(), idempotency_key=new.idempotency_key)
            )
            self._add_chunks(connection, run_id, new, total)
        return self.get(run_id), True

    def _repeated(self, connection: Connection, new: NewRun, fingerprint: str) -> str | None:
        if not new.idempotency_key:
            return None
        query = select(run.c.id, run.c.fingerprint).where(
            run.c.owner == new.owner, run.c.idempotency_key == new.idempotency_key
        )
        found = connection.execute(query).first()
        if found and found.fingerprint != fingerprint:
            raise Conflict("This Idempotency-Key was used for another request; choose a new key.", "Idempotency-Key")
        return found.id if found else None

    def _add_chunks(self, connection: Connection, run_id: str, new: NewRun, total: int) -> None:
        for position, (model, size) in enumerate(new.chunk_sizes.items()):
            connection.execute(
                insert(run_model).values(run=run_id, model=model, position=position, total=total * new.samples)
            )
            chunks = (
                {
                    "run": run_id,
                    "model": model,
                    "first": first,
                    "count": min(size, total - first),
                    "lane": new.kind,
                    "state": ChunkState.PENDING,
                }
                for first in range(0, total, size)
            )
            for batch in _batches(chunks, BATCH):
                connection.execute(insert(chunk), batch)

    def get(self, run_id: str) -> Run:
        """Raises `NotFound`."""
        with self.database.read() as connection:
            found = self._read(connection, select(run).where(run.c.id == run_id))
        if not found:
            raise NotFound(f"There is no run {run_id!r}; it may have been deleted.")
        return found[0]

    def newest(self, limit: int = 20, offset: int = 0, kind: RunKind | None = None) -> list[Run]:
        """Runs, newest first."""
        query = select(run).order_by(run.c.created.desc(), run.c.id).limit(limit).offset(offset)
        if kind:
            query = query.where(run.c.kind == kind)
        with self.database.read() as connection:
            return self._read(connection, query)

    def _read(self, connection: Connection, query: Any) -> list[Run]:
        rows = connection.execute(query).all()
        ids = [row.id for row in rows]
        counts: dict[str, dict[str, Counts]] = {run_id: {} for run_id in ids}
        for row in connection.execute(
            select(run_model).where(run_model.c.run.in_(ids)).order_by(run_model.c.run, run_model.c.position)
        ):
            counts[row.run][row.model] = Counts(row.total, row.done, row.failed, row.cancelled)
        return [
            Run(
                id=row.id,
                kind=RunKind(row.kind),
                state=RunState(row.state),
                owner=row.owner,
                title=row.title,
                sampling=row.sampling,
                samples=row.samples,
                prompts=row.prompts,
                created=row.created,
                finished=row.finished,
                models=counts[row.id],
            )
            for row in rows
        ]

    def prompts(self, run_id: str, offset: int = 0, limit: int = 50) -> list[Prompt]:
        """Prompts ``offset`` to ``offset + limit`` of a run, by index."""
        query = (
            select(prompt)
            .where(prompt.c.run == run_id, prompt.c.idx >= offset, prompt.c.idx < offset + limit)
            .order_by(prompt.c.idx)
        )
        with self.database.read() as connection:
            return [prompt_of(row) for row in connection.execute(query)]

    def cancel(self, run_id: str) -> Run:
        """End a run: nothing more is started, what a worker holds is handed in within `CANCEL_GRACE` seconds.

        A run that has ended stays as it is. Raises `NotFound`.
        """
        with self.database.write() as connection:
            changed = connection.execute(
                update(run)
                .where(run.c.id == run_id, run.c.state.in_([RunState.PENDING, RunState.RUNNING]))
                .values(state=RunState.CANCELLED)
            ).rowcount
            if changed:
                waiting = [ChunkState.PENDING, ChunkState.QUEUED]
                close_chunks(connection, (chunk.c.run == run_id) & chunk.c.state.in_(waiting), ChunkState.CANCELLED)
                deadline = now() + literal(CANCEL_GRACE)
                connection.execute(
                    update(chunk)
                    .where(chunk.c.run == run_id, chunk.c.state == ChunkState.LEASED)
                    .values(lease_until=case((chunk.c.lease_until < deadline, chunk.c.lease_until), else_=deadline))
                )
                finish_run_if_complete(connection, run_id)
        return self.get(run_id)

    def total(self) -> int:
        """How many runs there are."""
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(run)).scalar_one()


def _batches(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
