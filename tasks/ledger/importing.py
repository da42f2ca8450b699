"""Answers that were made elsewhere, on their way into a run as columns of their own."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert

from tasks.errors import InvalidInput
from tasks.ledger.columns import MAX_NAME, positions, refuse_present
from tasks.ledger.database import Database, now
from tasks.ledger.matching import Matching, is_storable
from tasks.ledger.planning import Samples, insert_chunks, parts
from tasks.ledger.records import Imported, NewAnswer
from tasks.ledger.staging import Staging
from tasks.ledger.submission import PIECE
from tasks.ledger.tables import completion, run_model
from tasks.states import ChunkState, FinishReason, Origin, RunKind

MARK = " (imported)"
MAX_COLUMNS = 100
MAX_ANSWER_CHARACTERS = 1_000_000
SHOWN_LINES = 1000
SCORED_CHUNK = 256  # prompts whose answers are scored together


@dataclass
class Column:
    """What was taken of one column: how many answers, to the prompts ``first`` to ``last``."""

    taken: int
    first: int
    last: int


class Importing:
    """Takes in one set of answers. A column is named as ``label`` says, else as each answer's ``model``."""

    def __init__(self, database: Database, run_id: str, label: str | None):
        self.database, self.run_id, self.label = database, run_id, label
        self.staging = Staging(database, run_id)
        self._columns: dict[str, Column] = {}
        self._unmatched: list[int] = []
        self._unmatched_count = 0

    def take(self, answers: Iterable[NewAnswer]) -> Imported:
        """Store all answers that find a prompt, which then are there at once, or none of them.

        ``answers`` is read once, as a stream. A second answer to the same prompt and sample finds none. The state of
        the run does not change. Raises `NotFound`, `Conflict` (such a column is there, somebody else is adding),
        `InvalidInput` (no name, an answer that cannot be stored), `Unavailable`, and whatever ``answers`` raises.
        """
        iterator = iter(answers)
        with self.staging.held() as of_run:
            with self.database.read() as connection:
                there = set(positions(connection, self.run_id))
            matching = Matching(self.database, self.run_id, of_run.prompts)
            names: set[str] = set()
            while piece := list(itertools.islice(iterator, PIECE)):
                named = [(self._name(answer), answer) for answer in piece]
                names |= {name for name, _ in named}
                refuse_present(there, names)
                if len(names) > MAX_COLUMNS:
                    raise InvalidInput(f"These are answers of more than {MAX_COLUMNS} models; give a label.", "label")
                self._store(named, matching, of_run.samples)
            self.staging.seal(self._seal)
        taken = sum(column.taken for column in self._columns.values())
        return Imported(tuple(self._columns), taken, self._unmatched_count, tuple(self._unmatched))

    def _name(self, answer: NewAnswer) -> str:
        name = (self.label or answer.model or "").strip()
        if not name:
            raise InvalidInput("The answers do not say which model gave them; give a label.", "label")
        if len(name) + len(MARK) > MAX_NAME:
            limit = MAX_NAME - len(MARK)
            raise InvalidInput(f"{name[:MAX_NAME]!r} is too long; give a label of at most {limit} characters.", "label")
        if not is_storable(name):
            raise InvalidInput("The name of the model has a character that is none; give a label.", "label")
        if problem := _problem_of(answer):
            raise InvalidInput(f"Line {answer.line}: the answer {problem}", "answers")
        return name + MARK

    def _store(self, named: Sequence[tuple[str, NewAnswer]], matching: Matching, samples: int) -> None:
        rows: dict[tuple[str, int, int], dict[str, Any]] = {}
        lines: dict[tuple[str, int, int], int] = {}
        for (name, answer), idx in zip(named, matching.find(named), strict=True):
            key = (name, -1 if idx is None else idx, answer.sample)
            if idx is None or not 0 <= answer.sample < samples or key in rows:
                self._leave_out(answer.line)
            else:
                rows[key], lines[key] = self._row(name, idx, answer), answer.line
        with self.database.write() as connection:
            self.staging.renew(connection)
            stored = self.database.insert_new(connection, completion, list(rows.values()), written=now())
        for _, name, idx, sample in stored:
            del lines[name, idx, sample]
            column = self._columns.setdefault(name, Column(0, idx, idx))
            column.taken += 1
            column.first, column.last = min(column.first, idx), max(column.last, idx)
        for line in lines.values():
            self._leave_out(line)

    def _row(self, name: str, idx: int, answer: NewAnswer) -> dict[str, Any]:
        return {
            "run": self.run_id,
            "model": name,
            "idx": idx,
            "sample": answer.sample,
            "text": answer.text,
            "finish_reason": FinishReason.STOP,
            "characters": len(answer.text),
            "cold": False,
            "attempt": 0,
            "retries": 0,
            "origin": Origin.IMPORTED,
        }

    def _leave_out(self, line: int) -> None:
        self._unmatched_count += 1
        if len(self._unmatched) < SHOWN_LINES:
            self._unmatched.append(line)

    def _seal(self, connection: Connection, of_run: Any) -> None:
        first = max(positions(connection, self.run_id).values(), default=-1) + 1
        for position, (name, column) in enumerate(self._columns.items(), first):
            counts = {"position": position, "total": column.taken, "done": column.taken, "origin": Origin.IMPORTED}
            connection.execute(insert(run_model).values({"run": self.run_id, "model": name} | counts))
            # Ended, but not scored yet: the scorer looks for such chunks.
            ranges = parts(column.first, column.last + 1, SCORED_CHUNK, ())
            samples = Samples(0, of_run.samples)
            insert_chunks(connection, self.run_id, name, RunKind(of_run.kind), samples, ranges, ChunkState.DONE)


def _problem_of(answer: NewAnswer) -> str | None:
    """What keeps an answer from being stored, as the end of a sentence."""
    if len(answer.text) > MAX_ANSWER_CHARACTERS:
        return f"has {len(answer.text)} characters; the limit is {MAX_ANSWER_CHARACTERS}."
    return None if is_storable(answer.text) else "has a character that is none (NUL or half a pair); remove it."
