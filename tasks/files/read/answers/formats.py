"""A format whose files are records, one an answer or a few: how one is known, and what answers it holds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.files.read.answers.problems import Problems
from tasks.ledger.records import NewAnswer

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RecordFormat:
    """``fits`` knows a record by its keys; ``answers`` takes it and its line, and tells ``Problems`` what it lacks."""

    name: str
    fits: Callable[[Record], bool]
    answers: Callable[[Record, int, Problems], Iterator[NewAnswer]]
