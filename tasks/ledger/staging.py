"""Adding to a run in pieces: who does it now, and what is left of whoever ended in the middle.

What is staged is there for nobody until it is sealed: prompts beyond the number that the run says it has, and
completions of columns that the run does not name.
"""

import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, literal, or_, select, update

from tasks.errors import Conflict, NotFound, TouchstoneError, Unavailable
from tasks.ledger.closing import existing, is_there, lock_run
from tasks.ledger.database import Database, now
from tasks.ledger.submission import ABANDONED_SECONDS, PIECE
from tasks.ledger.tables import completion, prompt, rendering, run, run_model, score

BUSY = "Somebody is adding to this run just now; try again when that is done."


class Staging:
    """The right to add to a run in pieces; one at a time has it, and loses it when no piece comes for long."""

    def __init__(self, database: Database, run_id: str):
        self.database, self.run_id = database, run_id
        self.token = secrets.token_hex(8)
        self._sealing = False

    @contextmanager
    def held(self) -> Iterator[Any]:
        """Take the right, and hand out the run's row; with an exception all that was staged goes away.

        Raises `NotFound`, and `Conflict` while somebody else adds to the run.
        """
        of_run = self.take()
        try:
            self._clear()
            yield of_run
        except BaseException:
            with suppress(TouchstoneError):  # then it is cleared away later
                self.give_back()
            raise

    def take(self) -> Any:
        """Take the right as `held` does; returns the run's row."""
        return self.database.transact(self._take, durable=True)

    def _take(self, connection: Connection) -> Any:
        existing(connection, self.run_id)
        free = or_(run.c.growth.is_(None), run.c.growth == self.token, _is_stale())
        taken = update(run).where(run.c.id == self.run_id, free).values(growth=self.token, growth_seen=now())
        of_run = connection.execute(taken.returning(run)).first()
        if of_run is None:
            raise Conflict(BUSY)
        return of_run

    def renew(self, connection: Connection) -> Any:
        """Hold the run's row and the right to add to it; returns the row. Raises `Unavailable` where it was lost."""
        held = (run.c.id == self.run_id) & (run.c.growth == self.token) & is_there
        of_run = connection.execute(update(run).where(held).values(growth_seen=now()).returning(run)).first()
        if of_run is None:
            raise Unavailable(
                "What was to be added came too slowly, or its run was deleted, so what there was of it is gone; "
                "add it again."
            )
        return of_run

    def seal(self, work: Callable[[Connection, Any], None]) -> None:
        """Let everything be seen in one transaction: ``work`` gets a connection and the run's row."""

        def seal(connection: Connection) -> None:
            of_run = lock_run(connection, self.run_id)
            if self._sealing and (of_run is None or of_run.growth != self.token):
                return  # it is done again because the answer to its commit got lost
            self._sealing = True
            work(connection, self.renew(connection))
            self._release(connection)

        self.database.transact(seal, durable=True)

    def give_back(self) -> None:
        """Remove what was staged and give the right back."""
        self._clear()
        self.database.transact(self._release, durable=True)

    def _release(self, connection: Connection) -> None:
        mine = (run.c.id == self.run_id) & (run.c.growth == self.token)
        connection.execute(update(run).where(mine).values(growth=None, growth_seen=None))

    def _clear(self) -> None:
        while self.database.transact(self._clear_some):
            pass

    def _clear_some(self, connection: Connection) -> bool:
        """Remove a portion of what is staged; False when there is no more."""
        of_run = self.renew(connection)
        beyond = (prompt.c.run == self.run_id) & (prompt.c.idx >= of_run.prompts)
        first = connection.execute(select(func.min(prompt.c.idx)).where(beyond)).scalar()
        if first is not None:
            connection.execute(delete(prompt).where(beyond, prompt.c.idx < first + PIECE))
            return True
        column = next(_unnamed(connection, self.run_id), None)
        if column is None:
            return False
        staged = (completion.c.run == self.run_id) & (completion.c.model == column)
        first = connection.execute(select(func.min(completion.c.idx)).where(staged)).scalar_one()
        for table in (score, rendering, completion):
            here = (table.c.run == self.run_id) & (table.c.model == column)
            connection.execute(delete(table).where(here, table.c.idx < first + PIECE))
        return True


def _unnamed(connection: Connection, run_id: str) -> Iterator[str]:
    """Columns that have completions but that the run does not name. Steps through the index, whatever its size."""
    named = set(connection.execute(select(run_model.c.model).where(run_model.c.run == run_id)).scalars())
    lowest = select(func.min(completion.c.model)).where(completion.c.run == run_id)
    column = connection.execute(lowest).scalar()
    while column is not None:
        if column not in named:
            yield column
        column = connection.execute(lowest.where(completion.c.model > column)).scalar()


def _is_stale() -> ColumnElement[bool]:
    return run.c.growth_seen < now() - literal(ABANDONED_SECONDS)


def refuse_while_adding(of_run: Any) -> None:
    """Raises `Conflict` where somebody adds to the run in pieces."""
    if of_run.growth is not None:
        raise Conflict(BUSY)


def refuse_staged(connection: Connection, run_id: str, names: Collection[str]) -> None:
    """Raises `Conflict` where completions of a column with one of ``names`` are staged: they would count as its own."""
    of_names = (completion.c.run == run_id) & completion.c.model.in_(names)
    if connection.execute(select(completion.c.model).where(of_names).limit(1)).first() is not None:
        raise Conflict(BUSY)


def clear_abandoned(database: Database, run_id: str | None = None) -> int:
    """Remove what is left where adding to a run (or this one) ended in its middle; returns of how many runs."""
    query = select(run.c.id).where(run.c.growth.is_not(None), _is_stale(), is_there)
    with database.read() as connection:
        left = list(connection.execute(query if run_id is None else query.where(run.c.id == run_id)).scalars())
    for each in left:
        staging = Staging(database, each)
        with suppress(Conflict, NotFound, Unavailable):  # somebody else was faster
            staging.take()
            staging.give_back()
    return len(left)
