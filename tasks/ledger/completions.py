"""Finished completions, read: in pages by key, or a sample of them, and never all that a run has."""

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, select

from tasks.ledger.database import Database
from tasks.ledger.records import Completion, Environment, Rendered
from tasks.ledger.samples import KEY, Sample, keys_of
from tasks.ledger.tables import completion, environment, prompt, rendering, run_model
from tasks.states import FinishReason, Origin

PAGE = 1000


@dataclass(frozen=True, order=True)
class Place:
    """Where a completion stands in its run: runs are read by prompt, model and sample."""

    idx: int
    model: str
    sample: int


def place_of(row: Completion) -> Place:
    return Place(row.idx, row.model, row.sample)


class Completions:
    def __init__(self, database: Database):
        self.database = database

    def page(
        self, run_id: str, model: str | None = None, after: Place | None = None, limit: int = 100
    ) -> list[Completion]:
        """At most ``limit`` completions of a run, by prompt, model and sample: those that come ``after`` a place."""
        with self.database.read() as connection:
            found = [
                self._read(connection, _following(run_id, name, after).limit(limit))
                for name in ([model] if model else _models(connection, run_id))
            ]
        return list(heapq.merge(*found, key=place_of))[:limit]

    def every(self, run_id: str) -> Iterator[Completion]:
        """All completions of a run, read a page at a time."""
        after = None
        while rows := self.page(run_id, after=after, limit=PAGE):
            yield from rows
            after = place_of(rows[-1])

    def for_prompts(self, run_id: str, first: int, count: int) -> list[Completion]:
        """Completions of the prompts ``first`` to ``first + count``."""
        within = (completion.c.idx >= first) & (completion.c.idx < first + count)
        with self.database.read() as connection:
            found = [
                row
                for name in _models(connection, run_id)
                for row in self._read(connection, _of(run_id, name).where(within))
            ]
        return sorted(found, key=place_of)

    def sample(self, sample: Sample) -> list[Completion]:
        """The completions of a sample."""
        found: list[Completion] = []
        with self.database.read() as connection:
            for model in sample.models:
                keys = keys_of(connection, sample, model)
                same = and_(*(column == keys.c[column.name] for column in KEY))
                found += self._read(connection, select(completion).join(keys, same))
        return found

    def rendering(self, run_id: str, model: str, idx: int, sample: int = 0) -> Rendered | None:
        """The prompt of a completion as its model saw it, where that is known."""
        here = (rendering.c.run == run_id) & (rendering.c.model == model) & (rendering.c.idx == idx)
        follows = select(prompt.c.follows).where(prompt.c.run == run_id, prompt.c.idx == idx).scalar_subquery()
        shared = (rendering.c.sample == 0) & follows.is_(None)
        query = select(rendering.c.text, rendering.c.tokens).where(here, shared | (rendering.c.sample == sample))
        with self.database.read() as connection:
            found = connection.execute(query.order_by(rendering.c.sample.desc()).limit(1)).first()
        return Rendered(found.text, tuple(found.tokens)) if found else None

    def environments(self, ids: Collection[str]) -> dict[str, Environment]:
        """The environments with these ids."""
        with self.database.read() as connection:
            rows = connection.execute(select(environment).where(environment.c.id.in_(ids)))
            return {row.id: Environment(row.id, row.facts) for row in rows}

    def _read(self, connection: Connection, query: Any) -> list[Completion]:
        return [completion_of(row) for row in connection.execute(query).mappings()]


def _models(connection: Connection, run_id: str) -> list[str]:
    # The key of completions begins with run and model: asked model by model, a page is read from one place each.
    return list(connection.execute(select(run_model.c.model).where(run_model.c.run == run_id)).scalars())


def _of(run_id: str, model: str) -> Any:
    here = (completion.c.run == run_id) & (completion.c.model == model)
    return select(completion).where(here).order_by(completion.c.idx, completion.c.sample)


def _following(run_id: str, model: str, after: Place | None) -> Any:
    query = _of(run_id, model)
    if after is None:
        return query
    query = query.where(completion.c.idx >= after.idx)
    if model == after.model:
        return query.where((completion.c.idx > after.idx) | (completion.c.sample > after.sample))
    return query.where(completion.c.idx > after.idx) if model < after.model else query


def completion_of(values: RowMapping) -> Completion:
    """A completion from the columns of its table."""
    columns = {column.name: values[column.name] for column in completion.columns}
    states = {"finish_reason": FinishReason(columns["finish_reason"]), "origin": Origin(columns["origin"])}
    return Completion(**columns | states)
