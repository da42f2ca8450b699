"""Chunks as workers get them, and what became of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.ledger.records.prompts import Prompt
from tasks.registry import ModelEntry
from tasks.states import FinishReason, RunKind


@dataclass(frozen=True)
class Answered:
    """What a completion that later turns follow has come to."""

    text: str
    finish_reason: FinishReason
    error: str | None


@dataclass(frozen=True)
class Claim:
    """A chunk that this worker holds until its lease runs out. ``missing`` are (idx, sample) still to be done.

    ``prompts`` are those of the chunk and all that they follow, ``answers`` what is known of the latter by (idx,
    sample). ``entry`` is the model's entry that the run was made with, None for runs of older ledgers. ``fresh``: no
    stored answers are taken.
    """

    chunk: int
    token: str
    run: str
    model: str
    kind: RunKind
    attempt: int
    sampling: Mapping[str, Any]
    deadline: float | None
    created: float
    enqueued: float
    claimed: float
    prompts: Mapping[int, Prompt]
    missing: tuple[tuple[int, int], ...]
    entry: ModelEntry | None = None
    answers: Mapping[tuple[int, int], Answered] = field(default_factory=dict)
    fresh: bool = True


@dataclass(frozen=True)
class Dispatched:
    """A chunk for which a message must now be published."""

    chunk: int
    lane: RunKind


@dataclass(frozen=True)
class Swept:
    """What a sweep did: chunks put back, split, given up and closed, and deleted runs whose rows are gone."""

    requeued: int = 0
    split: int = 0
    given_up: int = 0
    closed: int = 0
    purged: int = 0
