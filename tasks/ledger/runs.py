"""Runs and their prompts: submit and read."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, func, or_, select

from tasks.conversation import NewPrompt
from tasks.errors import InvalidInput
from tasks.ledger.closing import is_there, missing
from tasks.ledger.database import Database
from tasks.ledger.records import Counts, NewRun, Prompt, Run, prompt_of
from tasks.ledger.staging import clear_abandoned
from tasks.ledger.submission import Submission, abandoned, discard
from tasks.ledger.tables import prompt, run, run_model
from tasks.ledger.tables import prompt_set as sets
from tasks.registry import ModelEntry, entry_of
from tasks.states import Origin, RunKind, RunState


class Runs:
    def __init__(self, database: Database):
        self.database = database

    def submit(self, new: NewRun, prompts: Iterable[NewPrompt]) -> tuple[Run, bool]:
        """Store a run, its prompts and its chunks; returns it and whether it is new. All of it is there, or nothing.

        A repeated idempotency key of the same owner returns the first run, or raises `Conflict` where the request
        differs. ``prompts`` is read once, as a stream. Raises `InvalidInput` when there is none.
        """
        run_id, is_new = Submission(self.database, new).store(prompts)
        return self.get(run_id), is_new

    def discard_abandoned(self) -> int:
        """Delete what is left where a process ended while it submitted or added to a run; returns of how many runs."""
        left = abandoned(self.database)
        for run_id in left:
            discard(self.database, run_id)
        return len(left) + clear_abandoned(self.database)

    def get(self, run_id: str) -> Run:
        """Raises `NotFound`."""
        with self.database.read() as connection:
            found = self._read(connection, select(run).where(run.c.id == run_id, is_there))
        if not found:
            raise missing(run_id)
        return found[0]

    def newest(self, limit: int = 20, offset: int = 0, kind: RunKind | None = None) -> list[Run]:
        """Runs, newest first."""
        query = select(run).where(is_there).order_by(run.c.created.desc(), run.c.id).limit(limit).offset(offset)
        if kind:
            query = query.where(run.c.kind == kind)
        with self.database.read() as connection:
            return self._read(connection, query)

    def search(
        self,
        search: str | None = None,
        state: RunState | None = None,
        kind: RunKind | None = None,
        prompt_set: str | None = None,
        model: str | None = None,
        owner: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[list[Run], str | None]:
        """Runs, newest first: those with ``search`` in their title, id or the name of their prompts, and so on.

        The second value, given as ``after``, brings those that come next; None when there are none. Raises
        `InvalidInput` for an ``after`` that did not come from here.
        """
        wanted = [
            column == value
            for column, value in ((run.c.state, state), (run.c.kind, kind), (run.c.owner, owner))
            if value is not None
        ]
        query = select(run).where(is_there, *wanted).order_by(run.c.created.desc(), run.c.id).limit(limit + 1)
        if prompt_set is not None:
            query = query.where(run.c.prompt_set == prompt_set)
        if model is not None:
            query = query.where(exists().where(run_model.c.run == run.c.id, run_model.c.model == model))
        if search:
            named = select(sets.c.digest).where(sets.c.name.icontains(search, autoescape=True))
            texts = [column.icontains(search, autoescape=True) for column in (run.c.title, run.c.id)]
            query = query.where(or_(*texts, run.c.prompt_set.in_(named)))
        if after is not None:
            query = query.where(_comes_after(after))
        with self.database.read() as connection:
            found = self._read(connection, query)
        more = found[limit - 1] if len(found) > limit else None
        return found[:limit], f"{more.created!r}:{more.id}" if more else None

    def _read(self, connection: Connection, query: Any) -> list[Run]:
        named = query.add_columns(sets.c.name.label("set_name"))
        rows = connection.execute(named.outerjoin(sets, sets.c.digest == run.c.prompt_set)).all()
        ids = [row.id for row in rows]
        counts: dict[str, dict[str, Counts]] = {run_id: {} for run_id in ids}
        entries: dict[str, dict[str, ModelEntry]] = {run_id: {} for run_id in ids}
        origins: dict[str, dict[str, Origin]] = {run_id: {} for run_id in ids}
        merged: dict[str, dict[str, str]] = {run_id: {} for run_id in ids}
        samplings: dict[str, dict[str, Mapping[str, Any]]] = {run_id: {} for run_id in ids}
        for row in connection.execute(
            select(run_model).where(run_model.c.run.in_(ids)).order_by(run_model.c.run, run_model.c.position)
        ):
            counts[row.run][row.model] = Counts(row.total, row.done, row.failed, row.cancelled)
            origins[row.run][row.model] = Origin(row.origin)
            if row.entry:
                entries[row.run][row.model] = entry_of(row.entry)
            if row.merged_from:
                merged[row.run][row.model] = row.merged_from
                samplings[row.run][row.model] = row.sampling
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
                priority=row.priority,
                deadline=row.deadline,
                models=counts[row.id],
                entries=entries[row.id],
                origins=origins[row.id],
                merged=merged[row.id],
                samplings=samplings[row.id],
                prompt_set=row.prompt_set,
                set_name=row.set_name,
                fresh=row.fresh,
                batch=row.batch,
            )
            for row in rows
        ]

    def prompts(self, run_id: str, offset: int = 0, limit: int = 50) -> list[Prompt]:
        """Prompts ``offset`` to ``offset + limit`` of a run, by index."""
        query = (
            select(prompt)
            .where(prompt.c.run == run_id, prompt.c.idx >= offset, prompt.c.idx < offset + limit)
            .where(prompt.c.idx < select(run.c.prompts).where(run.c.id == run_id).scalar_subquery())
            .order_by(prompt.c.idx)
        )
        with self.database.read() as connection:
            return [prompt_of(row) for row in connection.execute(query)]

    def total(self) -> int:
        """How many runs there are."""
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(run).where(is_there)).scalar_one()

    def waiting(self) -> dict[str, int]:
        """How many completions of runs that have not ended are still to come, of each model that has any."""
        pending = run_model.c.total - run_model.c.done - run_model.c.failed - run_model.c.cancelled
        of_open = run_model.join(run, run.c.id == run_model.c.run)
        query = select(run_model.c.model, func.sum(pending)).select_from(of_open).group_by(run_model.c.model)
        with self.database.read() as connection:
            rows = connection.execute(query.where(run.c.finished.is_(None), is_there))
            return {model: int(number) for model, number in rows if number}


def _comes_after(place: str) -> ColumnElement[bool]:
    """A condition on a run: among runs, newest first, it comes after the one at this place (created:id)."""
    text, _, run_id = place.partition(":")
    try:
        created = float(text)
    except ValueError:
        raise InvalidInput("after must be the next of an earlier answer.", "after") from None
    return (run.c.created < created) | ((run.c.created == created) & (run.c.id > run_id))
