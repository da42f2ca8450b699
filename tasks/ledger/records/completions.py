"""What came out: completions with all that is known of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.states import FinishReason, Origin, Outcome


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
class ScoreRow:
    """Value of one metric for one completion."""

    run: str
    model: str
    idx: int
    sample: int
    values: Mapping[str, float] = field(default_factory=dict)
