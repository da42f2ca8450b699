"""What the ledger takes and gives: frozen values, so that nobody outside it knows rows or SQL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.conversation import Message, NewPrompt, Role
from tasks.registry import ModelEntry
from tasks.states import FinishReason, Origin, Outcome, RunKind, RunState, WaitReason, WorkerState


@dataclass(frozen=True)
class Prompt(NewPrompt):
    """A stored prompt; ``idx`` counts from 0 within its run.

    ``created`` is when it was added to a run that was there, in seconds since 1970; None for one that came with it.
    """

    idx: int = 0
    created: float | None = None


def prompt_of(row: Any) -> Prompt:
    """A prompt from a row of its table."""
    return Prompt(
        text=row.text,
        system=row.system,
        history=tuple(Message(Role(said["role"]), said["content"]) for said in row.history or ()),
        follows=row.follows,
        category=row.category,
        reference=row.reference,
        checks=tuple(row.checks or ()),
        tags=tuple(row.tags or ()),
        variables=row.variables,
        custom_id=row.custom_id,
        sampling=row.sampling,
        idx=row.idx,
        created=row.created,
    )


def columns_of(prompt: NewPrompt) -> dict[str, Any]:
    """A prompt as the columns of its table, without run and idx."""
    return {
        "text": prompt.text,
        "system": prompt.system,
        "history": [message.to_dict() for message in prompt.history] or None,
        "follows": prompt.follows,
        "category": prompt.category,
        "reference": prompt.reference,
        "checks": [dict(check) for check in prompt.checks] or None,
        "tags": list(prompt.tags) or None,
        "variables": dict(prompt.variables) if prompt.variables else None,
        "custom_id": prompt.custom_id,
        "sampling": dict(prompt.sampling) if prompt.sampling else None,
    }


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
class NewAnswer:
    """An answer that was made elsewhere, to the prompt with this ``custom_id``, else with this ``prompt``'s text.

    Where that prompt begins a conversation, ``turn`` says which of its turns is meant (from 0). ``model`` is who gave
    it, where its file says so; ``line`` is where in the file it stands (from 1).
    """

    text: str
    custom_id: str | None = None
    prompt: str | None = None
    turn: int = 0
    sample: int = 0
    model: str | None = None
    line: int = 0


@dataclass(frozen=True)
class Imported:
    """What came of answers that were handed in: ``unmatched`` are the lines of those that found no prompt."""

    columns: tuple[str, ...]
    taken: int
    unmatched_count: int
    unmatched: tuple[int, ...]


@dataclass(frozen=True)
class PromptSet:
    """Prompts that some runs have in common: the digest of their texts, their number and how many runs there are."""

    digest: str
    name: str | None
    prompts: int
    runs: int


@dataclass(frozen=True)
class Upload:
    """A file that was handed in. ``digest`` is its SHA-256 in hexadecimal, ``created`` seconds since 1970."""

    id: str
    name: str
    purpose: str
    bytes: int
    digest: str
    owner: str
    created: float


@dataclass(frozen=True)
class Rendered:
    """A prompt as its model saw it: after the template, and as token ids. ``text`` is None where only ids are known."""

    text: str | None
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Completion:
    """One terminal row. Times are seconds since 1970 (see docs of the phases in `tasks.measures.latency`).

    ``text`` is the answer without the ``thinking`` before it; ``output_tokens`` count both. ``answer_started`` is when
    the first character after the thinking came, ``retries`` how often the backend had to ask again. ``cache_key`` is a
    digest of everything that decides the answer, None where it is not to be found again.
    """

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
    thinking: str | None = None
    thinking_tokens: int | None = None
    answer_started: float | None = None
    retries: int = 0
    origin: Origin = Origin.COMPUTED
    cache_key: str | None = None

    @property
    def is_empty(self) -> bool:
        """Ended well and says nothing: shown as such, since an empty column looks like a page that is broken."""
        return self.finish_reason.outcome is Outcome.DONE and not self.text.strip()


@dataclass(frozen=True)
class Environment:
    """What a completion was made with: versions, device, dtype, threads, model revision. ``id`` is its digest."""

    id: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Worker:
    """A worker process; ``alive`` says whether its heartbeat is fresh. ``speed`` is completions a second.

    While it loads, ``stage`` says what it does and ``stage_share`` (0 to 1) how far it is. ``identity`` is that of the
    entry it runs, ``facts`` what there is to know of the model.
    """

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
    stage: str | None = None
    stage_share: float | None = None
    identity: str | None = None
    facts: Mapping[str, Any] | None = None
    started: float = 0.0
    heartbeat: float = 0.0
    alive: bool = True


@dataclass(frozen=True)
class Wait:
    """Why nothing of a run's model gets done now. ``detail`` is a worker's own words, ``stage`` what it is loading."""

    reason: WaitReason
    detail: str | None = None
    stage: str | None = None
    share: float | None = None


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
