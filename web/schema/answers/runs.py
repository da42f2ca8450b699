"""Answers about runs: how they stand, what of them waits."""

from typing import Any

from pydantic import Field

from tasks.registry.entry import Api, BackendKind
from tasks.states import LoadStage, Origin, RunKind, RunState, WaitReason
from web.schema.answers.base import Answer


class Counts(Answer):
    """Completions by outcome; done + failed + cancelled + pending = total."""

    total: int
    done: int
    failed: int
    cancelled: int
    pending: int


class Settings(Answer):
    """What a run's model answers with: the run's own settings over those of the model's entry.

    Null is the model's own way, or a setting that its backend does not have.
    """

    backend: BackendKind
    source: str | None = None
    gguf_file: str | None = None
    revision: str | None = None
    adapter: str | None = None
    model: str | None = Field(default=None, description="Its name at the server that answers")
    api: Api | None = None
    template: str | None = None
    system: str | None = None
    thinking: bool | None = None
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    no_repeat_ngram: int
    stop: list[str]
    seed: int


class Waits(Answer):
    """Why nothing of a run's model gets done now."""

    reason: WaitReason
    blocked: bool = Field(description="It ends only when somebody does something")
    message: str = Field(description="The reason in words, with what the worker itself says")
    detail: str | None = Field(description="What the worker itself says")
    stage: LoadStage | None = Field(description="What its worker does, while it loads")
    share: float | None = Field(description="How much of that is done, 0 to 1")


class ModelEstimate(Answer):
    """How long a model takes for its part of a run; seconds, in about 80 % of all cases between `low` and `high`."""

    name: str
    low: float | None
    high: float | None
    reason: str | None = Field(description="Why there are no numbers")
    wait: float = Field(description="What of it goes to other runs")
    load: float = Field(description="What of it goes to loading the model")
    too_long: int = Field(description="Prompts that do not fit into its context")
    guessed: bool = Field(description="`too_long` is a guess: the model's tokens were not counted yet")


class Estimate(Answer):
    """How long a run takes; the slowest of its models decides."""

    low: float | None
    high: float | None = Field(description="Null where it is not known of every model")
    models: list[ModelEstimate]


class RunModel(Answer):
    """One model of a run."""

    name: str
    origin: Origin = Field(description="`imported`: its answers were made elsewhere")
    counts: Counts
    settings: Settings | None = Field(description="Null for runs of older versions, which did not keep them")
    waits: Waits | None = Field(description="Null where nothing is pending")


class Run(Answer):
    """A run with its counts and its models."""

    id: str
    state: RunState
    kind: RunKind
    title: str
    priority: int
    deadline: float | None
    created: float
    finished: float | None
    prompts: int
    samples: int
    prompt_set: str | None = Field(description="Digest of its prompts' texts; null for runs of older versions")
    set_name: str | None
    fresh: bool = Field(description="It takes no stored answers")
    batch: str | None = Field(description="The batch of the OpenAI interface that it is part of")
    sampling: dict[str, Any] = Field(description="The settings that the run asked for; its models' own fill the rest")
    counts: Counts
    estimate: Estimate | None = Field(description="Of the time left; null where nothing is pending")
    models: list[RunModel]


class RunSummary(Answer):
    """A run in a list."""

    id: str
    title: str
    state: RunState
    kind: RunKind
    created: float
    finished: float | None
    prompts: int
    samples: int
    prompt_set: str | None
    set_name: str | None
    counts: Counts
    models: list[str]


class Runs(Answer):
    """A page of runs, newest first."""

    runs: list[RunSummary]
    next: str | None = Field(description="Give it as `after` for the following page")


class Submitted(Answer):
    """A run that is stored."""

    id: str
    url: str = Field(description="Its page")


class Followed(Answer):
    """A later turn that is stored."""

    id: str = Field(description="Its run")
    url: str = Field(description="The run's page")
    idx: int = Field(description="Index of the later turn among the run's prompts")


class Progress(Answer):
    """Events `state` and `end` of a stream: how far the run is."""

    state: RunState
    counts: Counts
    waits: dict[str, Waits] = Field(description="By model; those without anything pending are left out")
    estimate: Estimate | None = Field(description="Of the time left; null where nothing is pending")


class Delta(Answer):
    """Event `delta` of a stream: text that was added to a completion, or to the thinking before it."""

    model: str
    idx: int
    sample: int
    attempt: int = Field(description="A higher one starts text and thinking anew")
    text: str
    thinking: str
