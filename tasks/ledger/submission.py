"""A run on its way into the ledger, piece by piece."""

import hashlib
import itertools
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, delete, func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError

from tasks.conversation import NewPrompt, set_digest
from tasks.errors import Conflict, InvalidInput, Unavailable
from tasks.ledger.database import Database, now
from tasks.ledger.planning import Samples, insert_chunks, parts
from tasks.ledger.records import NewRun, columns_of
from tasks.ledger.tables import chunk, prompt, prompt_set, run, run_model
from tasks.states import RunState

PIECE = 5000  # prompts a transaction: short enough that other writers find their turn on SQLite
ABANDONED_SECONDS = 600.0

# The last piece sets the number of prompts: a run with none is not all there and is shown to nobody.
sealed = run.c.prompts > 0
_abandoned = run.c.finished.is_(None) & (run.c.created < now() - literal(ABANDONED_SECONDS))


class Submission:
    """Stores a run without ever holding all of its prompts.

    A piece is a transaction, so that a million prompts do not keep other writers waiting. The last piece seals the
    run in its own transaction; until then it has no counts and nothing of it is seen or dispatched.
    """

    def __init__(self, database: Database, new: NewRun):
        self.database, self.new = database, new
        self.id = secrets.token_hex(8)
        request = [new.kind, sorted(new.chunk_sizes), dict(new.sampling), new.samples, new.deadline]
        request += ["fresh"] if new.fresh else []
        self._digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode())
        self._set = ""
        self._total = 0
        self._planned = dict.fromkeys(new.chunk_sizes, 0)
        self._last_root = 0  # where the conversation begins that was handed in last
        self._followers: list[int] = []  # prompts not planned yet that follow others, in order
        self._begun = False

    def store(self, prompts: Iterable[NewPrompt]) -> tuple[str, bool]:
        """Store all of it; returns the id of the run and whether it is this one.

        It is another where the idempotency key was used for the same request before. What was stored goes away with
        any exception: `InvalidInput` (no prompt), `Conflict`, `Unavailable` and whatever ``prompts`` raises.
        """
        try:
            self._store(prompts)
        except BaseException as error:
            if self._begun:
                with suppress(Unavailable):  # then it is swept away later
                    discard(self.database, self.id)
            if isinstance(error, IntegrityError):
                return self._earlier(), False
            raise
        return self.id, True

    def _store(self, prompts: Iterable[NewPrompt]) -> None:
        for piece, is_last in _pieces(prompts):
            rows = self._rows(piece)  # before the transaction, which is to be short
            with self.database.write() as connection:
                self._begin_or_go_on(connection)
                connection.execute(insert(prompt), rows)
                self._plan(connection, is_last)
                if is_last:
                    self._seal(connection)
            self._begun = True
        if not self._total:
            raise InvalidInput("There is no prompt; send at least one.", "prompts")

    def _rows(self, piece: list[NewPrompt]) -> list[dict[str, Any]]:
        rows = []
        for idx, one in enumerate(piece, self._total):
            columns = columns_of(one)
            self._digest.update(_fingerprint(columns))
            self._set = set_digest(self._set, one)
            if one.follows is None:
                self._last_root = idx
            else:
                self._followers.append(idx)
            rows.append({"run": self.id, "idx": idx} | columns)
        self._total += len(rows)
        return rows

    def _plan(self, connection: Connection, is_last: bool) -> None:
        """Store the chunks whose prompts are there by now; with the last piece also those that are not full."""
        # The last conversation may go on with the next piece.
        end = self._total if is_last else self._last_root
        samples = Samples(0, self.new.samples)
        for model, size in self.new.chunk_sizes.items():
            ranges = list(parts(self._planned[model], end, size, self._followers, full=not is_last))
            insert_chunks(connection, self.id, model, self.new.kind, samples, ranges)
            if ranges:
                self._planned[model] = sum(ranges[-1])
        self._followers = [idx for idx in self._followers if idx >= min(self._planned.values(), default=0)]

    def _begin_or_go_on(self, connection: Connection) -> None:
        if not self._begun:
            values = {
                "id": self.id,
                "kind": self.new.kind,
                "state": RunState.PENDING,
                "owner": self.new.owner,
                "title": self.new.title[:200],
                "sampling": {"seed": secrets.randbelow(2**31)} | dict(self.new.sampling),
                "samples": self.new.samples,
                "deadline": self.new.deadline,
                "fresh": self.new.fresh,
                "batch": self.new.batch,
                "prompts": 0,
                "created": now(),
                "fingerprint": "",
            }
            connection.execute(insert(run).values(values))
        elif not connection.execute(update(run).where(run.c.id == self.id, ~_abandoned).values(created=now())).rowcount:
            raise Unavailable("The prompts came too slowly, so what there was of them is gone; send them again.")

    def _seal(self, connection: Connection) -> None:
        """Raises `IntegrityError` where the owner has used the idempotency key before."""
        total = self._total * self.new.samples
        counts = [
            {"run": self.id, "model": model, "position": position, "total": total, **_entry(self.new, model)}
            for position, model in enumerate(self.new.chunk_sizes)
        ]
        connection.execute(insert(run_model), counts)
        values = {
            "prompts": self._total,
            "created": now(),
            "fingerprint": self._digest.hexdigest(),
            "idempotency_key": self.new.idempotency_key,
            "prompt_set": self._set,
        }
        connection.execute(update(run).where(run.c.id == self.id).values(values))
        if self.new.set_name:
            named = {"digest": self._set, "name": self.new.set_name, "prompts": self._total}
            self.database.insert_new(connection, prompt_set, [named], created=now())

    def _earlier(self) -> str:
        """The run that the idempotency key stands for. Raises `Conflict` where its request was another."""
        same_key = (run.c.owner == self.new.owner) & (run.c.idempotency_key == self.new.idempotency_key)
        with self.database.read() as connection:
            found = connection.execute(select(run.c.id, run.c.fingerprint).where(same_key)).first()
        if found is None or self.new.idempotency_key is None:
            raise Unavailable("What was stored of this run has just been deleted; send it again.")
        if found.fingerprint != self._digest.hexdigest():
            raise Conflict("This Idempotency-Key was used for another request; choose a new key.", "Idempotency-Key")
        return str(found.id)


def abandoned(database: Database) -> list[str]:
    """Runs that were begun and not sealed, whose process has not been heard of for `ABANDONED_SECONDS`."""
    with database.read() as connection:
        return list(connection.execute(select(run.c.id).where(~sealed, _abandoned)).scalars())


def discard(database: Database, run_id: str) -> None:
    """Delete a run that was not sealed, with its rows, in short transactions."""
    with database.read() as connection:
        last = connection.execute(select(func.max(prompt.c.idx)).where(prompt.c.run == run_id)).scalar()
    for first in range(0, (last or 0) + 1, PIECE):
        with database.write() as connection:
            for table, column in ((prompt, prompt.c.idx), (chunk, chunk.c.first)):
                here = (table.c.run == run_id) & (column >= first) & (column < first + PIECE)
                connection.execute(delete(table).where(here))
    with database.write() as connection:
        connection.execute(delete(run).where(run.c.id == run_id, ~sealed))


def _entry(new: NewRun, model: str) -> dict[str, Any]:
    entry = new.entries.get(model)
    return {"entry": entry.snapshot() if entry else None, "identity": entry.identity if entry else None}


def _fingerprint(columns: Mapping[str, Any]) -> bytes:
    """What tells a prompt from another; of one that is text alone the same as before there were conversations."""
    rest = {name: value for name, value in columns.items() if name not in ("text", "system") and value is not None}
    parts = [columns["text"], columns["system"], *([rest] if rest else [])]
    return json.dumps(parts, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def _pieces(prompts: Iterable[NewPrompt]) -> Iterator[tuple[list[NewPrompt], bool]]:
    """Pieces in order, each with whether it is the last."""
    iterator = iter(prompts)
    piece = list(itertools.islice(iterator, PIECE))
    while piece:
        following = list(itertools.islice(iterator, PIECE))
        yield piece, not following
        piece = following
