"""What a worker knows of whatever answers: generations go in, increments and answers come out, without torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tasks.conversation import Conversation
from tasks.ledger.records import Environment, Rendered
from tasks.registry import ModelEntry
from tasks.sampling import Sampling
from tasks.states import FinishReason, LoadStage

LATE = "The deadline passed before the completion ended; allow more time or fewer tokens."


@dataclass(frozen=True)
class Generation:
    """One completion to generate: the answer to ``conversation``, with template and thinking as ``entry`` says.

    A lower ``priority`` goes first. ``deadline`` is a point of `time.monotonic` after which it ends with what it has.
    One that nobody watches needs no ``streams``: then only its answer is told.

    `Backend.prepare` fills in ``rendered``, the prompt as the model will see it, and ``answer_key``, the key of its
    answer among the stored ones, which ``sample`` is a part of.
    """

    id: str
    conversation: Conversation
    entry: ModelEntry
    sampling: Sampling
    priority: int = 0
    deadline: float | None = None
    streams: bool = True
    sample: int = 0
    rendered: Rendered | None = None
    answer_key: str | None = None


@dataclass(frozen=True)
class Increment:
    """Text that was added to an answer, or to the thinking before it: never half a character.

    ``restarts``: the backend begins this generation anew; what was told of it so far does not count.
    """

    generation_id: str
    text: str
    thinking: str = ""
    restarts: bool = False


@dataclass(frozen=True)
class Answer:
    """A finished generation. Times are points of `time.monotonic` in seconds; None where it never got there.

    ``text`` is the whole answer without the ``thinking`` before it. Numbers of tokens are None where the backend
    cannot know them. ``answer_started`` is when the first character after the thinking came, None without thinking.
    ``error`` is set if and only if ``finish_reason`` is ERROR or DEADLINE. ``rendered`` is the prompt as the model saw
    it, where that is known. ``retries`` counts how often the backend had to ask again.
    """

    generation_id: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    batch_size: int | None = None
    error: str | None = None
    thinking: str = ""
    thinking_tokens: int | None = None
    answer_started: float | None = None
    rendered: Rendered | None = None
    retries: int = 0


@dataclass(frozen=True)
class Failure:
    """The backend failed while it had this generation; whose fault it was is not known."""

    generation_id: str
    error: str


Event = Increment | Answer | Failure
Sink = Callable[[Event], None]


@dataclass(frozen=True)
class Description:
    """What answers, once it is ready.

    ``load_seconds`` is the time from the start of loading to ready. ``facts`` are what a model's card shows, such as
    architecture, parameters, context and chat template.
    """

    environment: Environment
    device: str
    dtype: str
    slots: int
    load_seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """Whatever answers for one model. Every method may be called from any thread and returns at once.

    ``progress`` grows with every token, so that a watchdog can tell working from stuck; ``failures`` counts how often
    the backend has failed since it last made one.
    """

    description: Description

    @property
    def active(self) -> int:
        """Generations that are waiting or running."""

    @property
    def progress(self) -> int: ...

    @property
    def failures(self) -> int: ...

    def prepare(self, generation: Generation) -> Generation:
        """The same generation, rendered where the backend renders, with the key of its answer.

        It has none where it is not certain that the answer would be the same again, or where the prompt is impossible,
        which `submit` then tells.
        """

    def submit(self, generation: Generation, sink: Sink) -> None:
        """Take a generation in. It ends in exactly one `Answer` or `Failure`; ``sink`` must not block."""

    def cancel(self, generation_id: str) -> None:
        """End a generation soon and keep its partial text; unknown ids are ignored."""

    def close(self) -> None:
        """End whatever runs on the backend's behalf, such as a server that it started."""


class Report(Protocol):
    """Tells how far loading is."""

    def __call__(self, stage: LoadStage, share: float | None = None) -> None:
        """``share`` of the stage that is done, 0 to 1, None where it cannot be told."""


Open = Callable[[ModelEntry, Report], Backend]  # raises ModelError with one line that says what is wrong
