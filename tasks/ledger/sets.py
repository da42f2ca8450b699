"""Sets of prompts that runs have in common, and their names."""

from typing import Any

from sqlalchemy import Connection, func, select, update

from tasks.errors import NotFound
from tasks.ledger.closing import is_there
from tasks.ledger.database import Database, now
from tasks.ledger.records import PromptSet
from tasks.ledger.tables import prompt_set, run


class Sets:
    def __init__(self, database: Database):
        self.database = database

    def all(self, limit: int = 200) -> list[PromptSet]:
        """The sets that runs have, those first of which the newest runs are."""
        with self.database.read() as connection:
            newest = connection.execute(_sets().order_by(func.max(run.c.created).desc()).limit(limit))
            return [PromptSet(*row) for row in newest]

    def get(self, digest: str) -> PromptSet:
        """Raises `NotFound` for a set that no run has."""
        with self.database.read() as connection:
            found = connection.execute(_sets().where(run.c.prompt_set == digest)).first()
        if found is None:
            raise NotFound(f"No run has a set of prompts with the digest {digest!r}.")
        return PromptSet(*found)

    def name(self, digest: str, name: str) -> PromptSet:
        """Name a set, or give it another name. Raises `NotFound` for a set that no run has."""
        known = self.get(digest)

        def store(connection: Connection) -> None:
            here = update(prompt_set).where(prompt_set.c.digest == digest)
            if not connection.execute(here.values(name=name)).rowcount:
                new = {"digest": digest, "name": name, "prompts": known.prompts}
                self.database.insert_new(connection, prompt_set, [new], created=now())

        self.database.transact(store, durable=True)
        return self.get(digest)


def _sets() -> Any:
    named = run.outerjoin(prompt_set, prompt_set.c.digest == run.c.prompt_set)
    columns = (run.c.prompt_set, func.max(prompt_set.c.name), func.max(run.c.prompts), func.count())
    known = select(*columns).select_from(named).where(is_there, run.c.prompt_set.is_not(None))
    return known.group_by(run.c.prompt_set)
