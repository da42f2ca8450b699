"""Finished completions, read."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import RowMapping, select

from tasks.ledger.database import Database
from tasks.ledger.records import Completion, Environment
from tasks.ledger.tables import completion, environment
from tasks.states import FinishReason

ORDER = (completion.c.idx, completion.c.model, completion.c.sample)


class Completions:
    def __init__(self, database: Database):
        self.database = database

    def page(self, run_id: str, model: str | None = None, offset: int = 0, limit: int = 100) -> list[Completion]:
        """Completions of a run by prompt, model and sample."""
        query = select(completion).where(completion.c.run == run_id).order_by(*ORDER).offset(offset).limit(limit)
        return self._read(query.where(completion.c.model == model) if model else query)

    def for_prompts(self, run_id: str, first: int, count: int) -> list[Completion]:
        """Completions of the prompts ``first`` to ``first + count``."""
        here = (completion.c.run == run_id) & (completion.c.idx >= first) & (completion.c.idx < first + count)
        return self._read(select(completion).where(here).order_by(*ORDER))

    def recent(
        self, models: Collection[str] | None = None, run_id: str | None = None, limit: int = 5000
    ) -> list[Completion]:
        """The newest completions, at most ``limit``, of some models or of one run."""
        query = select(completion).order_by(completion.c.written.desc()).limit(limit)
        if models is not None:
            query = query.where(completion.c.model.in_(models))
        return self._read(query.where(completion.c.run == run_id) if run_id else query)

    def environments(self, ids: Collection[str]) -> dict[str, Environment]:
        """The environments with these ids."""
        with self.database.read() as connection:
            rows = connection.execute(select(environment).where(environment.c.id.in_(ids)))
            return {row.id: Environment(row.id, row.facts) for row in rows}

    def _read(self, query: Any) -> list[Completion]:
        with self.database.read() as connection:
            return [completion_of(row) for row in connection.execute(query).mappings()]


def completion_of(values: RowMapping) -> Completion:
    """A completion from the columns of its table."""
    columns = {column.name: values[column.name] for column in completion.columns}
    return Completion(**columns | {"finish_reason": FinishReason(columns["finish_reason"])})
