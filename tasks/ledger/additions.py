"""Prompts on their way into a run that is there, piece by piece."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, insert, select

from tasks.conversation import MAX_PROMPTS, NewPrompt, set_digest
from tasks.errors import InvalidInput
from tasks.ledger.closing import reopened
from tasks.ledger.database import Database, now
from tasks.ledger.records import columns_of
from tasks.ledger.staging import Staging
from tasks.ledger.submission import PIECE
from tasks.ledger.tables import prompt


class Addition:
    """Stages prompts behind those of a run, never holding all of them.

    ``total`` is how many the run has with them, ``digest`` that of all their texts, ``followers`` those of the new
    ones that go on with the conversation before them.
    """

    def __init__(self, database: Database, run_id: str):
        self.database, self.run_id = database, run_id
        self.staging = Staging(database, run_id)
        self.first = self.total = 0
        self.digest: str | None = None
        self.followers: list[int] = []

    @contextmanager
    def held(self) -> Iterator["Addition"]:
        """See `Staging.held`; raises `Conflict` while the run is being cancelled, too."""
        with self.staging.held() as of_run:
            reopened(of_run)
            self.first = self.total = of_run.prompts
            self.digest = of_run.prompt_set
            yield self

    def store(self, prompts: Iterable[NewPrompt]) -> None:
        """Stage prompts, a piece a transaction. Raises `InvalidInput`, and whatever ``prompts`` raises."""
        iterator = iter(prompts)
        while piece := list(itertools.islice(iterator, PIECE)):
            if self.total + len(piece) > MAX_PROMPTS:
                problem = f"The run has {self.first} prompts and takes {MAX_PROMPTS}; these are too many."
                raise InvalidInput(problem, "prompts")
            rows = self._rows(piece)
            with self.database.write() as connection:
                refuse_known_ids(connection, self.staging.renew(connection), piece)
                connection.execute(insert(prompt).values(created=now()), rows)
            self.total += len(rows)
        if self.total == self.first:
            raise InvalidInput("There is no prompt; send at least one.", "prompts")

    def _rows(self, piece: Sequence[NewPrompt]) -> list[dict[str, Any]]:
        rows = []
        for idx, given in enumerate(piece, self.total):
            one = given
            if given.follows is not None:
                one = replace(given, follows=given.follows + self.first)
                self.followers.append(idx)
            if self.digest is not None:
                self.digest = set_digest(self.digest, one)
            rows.append({"run": self.run_id, "idx": idx} | columns_of(one))
        return rows

    def seal(self, work: Callable[[Connection, Any], None]) -> None:
        """See `Staging.seal`."""
        self.staging.seal(work)


def refuse_known_ids(connection: Connection, of_run: Any, prompts: Sequence[NewPrompt]) -> None:
    """Raises `InvalidInput` where one of ``prompts`` has the custom_id of a prompt of the run."""
    ids = [one.custom_id for one in prompts if one.custom_id is not None]
    if not ids:
        return
    same = select(prompt.c.custom_id).where(prompt.c.run == of_run.id, prompt.c.custom_id.in_(ids))
    found = connection.execute(same.where(prompt.c.idx < of_run.prompts).limit(1)).scalar()
    if found is not None:
        raise InvalidInput(f"The run has a prompt with the custom_id {found!r} already; ids must differ.", "custom_id")
