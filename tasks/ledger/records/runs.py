"""Runs as the ledger takes and gives them, with their counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.registry import ModelEntry
from tasks.states import Origin, RunKind, RunState, WaitReason


@dataclass(frozen=True)
class NewRun:
    """A run to be submitted; ``chunk_sizes`` says for each model how many prompts go into one chunk.

    ``entries`` are the models' entries in the registry; a worker renders and decodes as they say. ``deadline`` is how
    many seconds a worker may take over one completion (None: as the model's entry says). ``fresh`` takes no stored
    answers, ``set_name`` names the set of its prompts where that has no name yet, ``batch`` is the OpenAI batch that
    it is part of.
    """

    kind: RunKind
    owner: str
    chunk_sizes: Mapping[str, int]
    sampling: Mapping[str, Any]
    samples: int = 1
    title: str = ""
    idempotency_key: str | None = None
    deadline: float | None = None
    entries: Mapping[str, ModelEntry] = field(default_factory=dict)
    fresh: bool = False
    set_name: str | None = None
    batch: str | None = None


@dataclass(frozen=True)
class Counts:
    """Completions by outcome; done + failed + cancelled + pending = total, at every moment."""

    total: int
    done: int
    failed: int
    cancelled: int

    @property
    def pending(self) -> int:
        return self.total - self.done - self.failed - self.cancelled

    @property
    def ended(self) -> int:
        return self.total - self.pending

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.total + other.total,
            self.done + other.done,
            self.failed + other.failed,
            self.cancelled + other.cancelled,
        )

    def to_dict(self) -> dict[str, int]:
        return {
            "total": self.total,
            "done": self.done,
            "failed": self.failed,
            "cancelled": self.cancelled,
            "pending": self.pending,
        }


@dataclass(frozen=True)
class Run:
    """A run with its counts. Times are seconds since 1970; ``models`` keeps the order in which they were asked.

    Within a lane, runs of a higher ``priority`` go first. ``entries`` are the models' entries as they were when the
    run was made; runs of older ledgers have none. ``origins`` says of each model whether its answers were computed
    here or imported, ``merged`` of each column that was merged in from which run, ``samplings`` with which settings
    it was made there. ``prompt_set`` is the digest of its prompts' texts (None for runs of older ledgers),
    ``set_name`` the name of that set.
    """

    id: str
    kind: RunKind
    state: RunState
    owner: str
    title: str
    sampling: Mapping[str, Any]
    samples: int
    prompts: int
    created: float
    finished: float | None
    priority: int
    deadline: float | None
    models: Mapping[str, Counts]
    entries: Mapping[str, ModelEntry] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)
    merged: Mapping[str, str] = field(default_factory=dict)
    samplings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prompt_set: str | None = None
    set_name: str | None = None
    fresh: bool = False
    batch: str | None = None

    @property
    def computed(self) -> list[str]:
        """The models that answer here, without the columns that were imported."""
        return [name for name in self.models if self.origins.get(name) is not Origin.IMPORTED]

    @property
    def growing(self) -> list[str]:
        """The models that answer what is added to the run, which neither imported nor merged columns do."""
        return [name for name in self.computed if name not in self.merged]

    @property
    def counts(self) -> Counts:
        return sum(self.models.values(), Counts(0, 0, 0, 0))


@dataclass(frozen=True)
class Wait:
    """Why nothing of a run's model gets done now. ``detail`` is a worker's own words, ``stage`` what it is loading."""

    reason: WaitReason
    detail: str | None = None
    stage: str | None = None
    share: float | None = None
