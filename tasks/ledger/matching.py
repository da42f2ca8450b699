"""Which prompt of a run an answer that was made elsewhere belongs to."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

from sqlalchemy import func, select

from tasks.ledger.database import Database
from tasks.ledger.records import NewAnswer
from tasks.ledger.tables import prompt
from tasks.schema import LONE_SURROGATE

READ_AT_ONCE = 5000


class Matching:
    """Finds prompts by ``custom_id``, else by their text without the white space around it.

    Of prompts with the same text, the first takes the first answer to it, the second the second, and so on.
    """

    def __init__(self, database: Database, run_id: str, prompts: int):
        self.database, self.run_id, self.prompts = database, run_id, prompts
        self._taken: Counter[tuple[str, int, int, int]] = Counter()

    def find(self, answers: Sequence[tuple[str, NewAnswer]]) -> Iterator[int | None]:
        """For each answer, with the column that it goes to, the idx of its prompt; None where there is none."""
        by_id = self._by_id({answer.custom_id for _, answer in answers if answer.custom_id is not None})
        for column, answer in answers:
            idx = by_id.get(answer.custom_id) if answer.custom_id is not None else None
            if idx is None and answer.prompt is not None:
                idx = self._by_text(column, answer, answer.prompt)
            turn = 0
            while idx is not None and turn < answer.turn:
                idx, turn = self._next_turns.get(idx), turn + 1
            yield idx

    def _by_id(self, ids: set[str]) -> dict[str, int]:
        known = [custom_id for custom_id in ids if is_storable(custom_id)]
        if not known:
            return {}
        here = (prompt.c.run == self.run_id) & prompt.c.custom_id.in_(known) & (prompt.c.idx < self.prompts)
        with self.database.read() as connection:
            # Backwards, as runs of older ledgers may have an id twice.
            query = select(prompt.c.custom_id, prompt.c.idx).where(here).order_by(prompt.c.idx.desc())
            return {row[0]: row[1] for row in connection.execute(query)}

    def _by_text(self, column: str, answer: NewAnswer, text: str) -> int | None:
        key = _key(text)
        found = self._texts.get(key)
        if found is None or isinstance(found, int):
            return found
        place = (column, answer.sample, answer.turn, key)
        at = self._taken[place]
        self._taken[place] += 1
        return found[at] if at < len(found) else None

    @cached_property
    def _texts(self) -> dict[int, int | list[int]]:
        """Where each text stands, by its hash of 64 bits: the texts of a million prompts would not fit."""
        places: dict[int, int | list[int]] = {}
        for idx, text in self._read():
            before = places.setdefault(_key(text), idx)
            if isinstance(before, list):
                before.append(idx)
            elif before != idx:
                places[_key(text)] = [before, idx]
        return places

    def _read(self) -> Iterator[tuple[int, str]]:
        for first in range(0, self.prompts, READ_AT_ONCE):
            stop = min(first + READ_AT_ONCE, self.prompts)
            some = (prompt.c.run == self.run_id) & (prompt.c.idx >= first) & (prompt.c.idx < stop)
            with self.database.read() as connection:
                rows = connection.execute(select(prompt.c.idx, prompt.c.text).where(some).order_by(prompt.c.idx))
                yield from [(row.idx, row.text) for row in rows]

    @cached_property
    def _next_turns(self) -> dict[int, int]:
        """The first prompt that follows each prompt that any follows."""
        here = (prompt.c.run == self.run_id) & (prompt.c.idx < self.prompts) & prompt.c.follows.is_not(None)
        query = select(prompt.c.follows, func.min(prompt.c.idx)).where(here).group_by(prompt.c.follows)
        with self.database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}


def is_storable(text: str) -> bool:
    """Whether every database takes the text."""
    return "\x00" not in text and not LONE_SURROGATE.search(text)


def _key(text: str) -> int:
    return hash(text.strip())
