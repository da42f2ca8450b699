"""What the ledger takes and gives: frozen values, so that nobody outside it knows rows or SQL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.states import FinishReason, RunKind, RunState, WorkerState


@dataclass(frozen=True)
class NewPrompt:
    """One prompt as it was handed in."""

    text: str
    category: str | None = None
    reference: str | None = None
    system: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Prompt(NewPrompt):
    """A stored prompt; ``idx`` counts from 0 within its run."""

    idx: int = 0


def prompt_of(row: Any) -> Prompt:
    """A prompt from a row of its table."""
    return Prompt(row.text, row.category, row.reference, row.system, row.metadata, row.idx)


@dataclass(frozen=True)
class NewRun:
    """A run to be submitted; ``chunk_sizes`` says for each model how many prompts go into one chunk.

    ``deadline`` is how many seconds a worker may take over one completion (None: as the model's entry says).
    """

    kind: RunKind
    owner: str
    chunk_sizes: Mapping[str, int]
    sampling: Mapping[str, Any]
    samples: int = 1
    title: str = ""
    idempotency_key: str | None = None
    deadline: float | None = None


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

    Within a lane, runs of a higher ``priority`` go first.
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

    @property
    def counts(self) -> Counts:
        return sum(self.models.values(), Counts(0, 0, 0, 0))


@dataclass(frozen=True)
class Claim:
    """A chunk that this worker holds until its lease runs out. ``missing`` are (idx, sample) still to be done."""

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


@dataclass(frozen=True)
class Completion:
    """One terminal row. Times are seconds since 1970 (see docs of the phases in `tasks.measures.latency`)."""

    run: str
    model: str
    idx: int
    sample: int
    text: str
    finish_reason: FinishReason
    error: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    characters: int = 0
    created: float | None = None
    enqueued: float | None = None
    claimed: float | None = None
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    written: float = 0.0
    batch_size: int | None = None
    cold: bool = False
    attempt: int = 0
    seed: int | None = None
    worker: str | None = None
    peak_rss: int | None = None
    peak_device_memory: int | None = None
    energy_joules: float | None = None
    environment: str | None = None


@dataclass(frozen=True)
class Environment:
    """What a completion was made with: versions, device, dtype, threads, model revision. ``id`` is its digest."""

    id: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Worker:
    """A worker process; ``alive`` says whether its heartbeat is fresh. ``speed`` is completions a second."""

    id: str
    model: str
    state: WorkerState
    host: str
    pid: int
    device: str
    cores: str
    dtype: str
    slots: int
    active: int = 0
    speed: float | None = None
    load_seconds: float | None = None
    rss: int | None = None
    error: str | None = None
    started: float = 0.0
    heartbeat: float = 0.0
    alive: bool = True


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


@dataclass(frozen=True)
class ScoreRow:
    """Value of one metric for one completion."""

    run: str
    model: str
    idx: int
    sample: int
    values: Mapping[str, float] = field(default_factory=dict)
