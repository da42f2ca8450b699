"""What the API answers. Points of time are seconds since 1970, durations are seconds."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.registry.entry import Api, BackendKind
from tasks.states import FinishReason, LoadStage, Origin, RunKind, RunState, WaitReason
from web.schema.states import ModelState, ShownWorkerState

Maybe = Annotated[float | None, Field(description="Seconds; null where it is not known")]


class Answer(BaseModel):
    """A part of an answer: every field that is documented is there, and no other."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


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


class RunModel(Answer):
    """One model of a run."""

    name: str
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
    sampling: dict[str, Any] = Field(description="The settings that the run asked for; its models' own fill the rest")
    counts: Counts
    models: list[RunModel]


class Phases(Answer):
    """The latency of one completion, phase by phase; null where a point of time is missing."""

    queue: Maybe
    load: Maybe
    slot_wait: Maybe
    ttft: Maybe
    tpot: Maybe
    service: Maybe
    e2e: Maybe
    output_rate: float | None = Field(description="Tokens a second")
    characters_per_second: float | None
    ms_a_character: float | None
    output_tokens: int | None
    characters: int | None
    cold: bool


class Completion(Answer):
    """A completion that has ended."""

    run: str
    model: str
    idx: int = Field(description="Index of its prompt, from 0")
    sample: int
    text: str = Field(description="The answer, without the thinking before it")
    finish_reason: FinishReason
    error: str | None
    prompt_tokens: int | None
    output_tokens: int | None = Field(description="Tokens of thinking and answer together")
    characters: int
    created: float | None
    enqueued: float | None
    claimed: float | None
    admitted: float | None
    first_token: float | None
    last_token: float | None
    written: float
    batch_size: int | None
    cold: bool = Field(description="Its worker had to load the model for it")
    attempt: int
    seed: int | None
    worker: str | None
    peak_rss: int | None = Field(description="Bytes")
    peak_device_memory: int | None = Field(description="Bytes")
    energy_joules: float | None
    environment: str | None
    thinking: str | None
    thinking_tokens: int | None
    answer_started: float | None = Field(description="When the first character after the thinking came")
    retries: int = Field(description="How often the backend had to ask again")
    origin: Origin = Field(description="`cached`: the stored answer to the same question; `imported`: made elsewhere")
    cache_key: str | None = Field(description="Digest of everything that decides the answer, where that is known")
    is_empty: bool = Field(description="It ended well and says nothing")
    phases: Phases


class Delta(Answer):
    """Event `delta` of a stream: text that was added to a completion, or to the thinking before it."""

    model: str
    idx: int
    sample: int
    attempt: int = Field(description="A higher one starts text and thinking anew")
    text: str
    thinking: str


class Progress(Answer):
    """Events `state` and `end` of a stream: how far the run is."""

    state: RunState
    counts: Counts
    waits: dict[str, Waits] = Field(description="By model; those without anything pending are left out")


class Completions(Answer):
    """A page of completions, by prompt, model and sample."""

    completions: list[Completion]
    next: str | None = Field(description="Give it as `after` for the following page")


class Rendered(Answer):
    """A prompt as its model saw it, after the template."""

    text: str | None = Field(description="Null where only the token ids are known")
    tokens: list[int]


class Texts(Answer):
    """A text in both languages."""

    zh: str
    en: str


class Model(Answer):
    """A model of the registry, or one that has left it while runs wait for it (state `removed`)."""

    name: str
    label: Texts
    description: Texts
    state: ModelState
    reason: str | None = Field(description="The error of its worker, where it has one")
    stage: LoadStage | None = Field(description="What its worker does, while it loads")
    share: float | None = Field(description="How much of that is done, 0 to 1")
    backend: BackendKind | None = Field(description="`openai`: a server answers; null where it is not known")
    remote: bool = Field(description="Its answers come from another machine")
    device: str | None
    dtype: str | None
    slots: int | None
    memory: int | None = Field(description="Bytes that the newest worker takes")
    load_seconds: float | None
    facts: dict[str, Any] = Field(description="What there is to know of the model, such as parameters and context")
    decoding: dict[str, Any] = Field(description="Decoding settings of its entry")
    template: str | None
    system: str | None
    thinking: bool | None
    ready_workers: int
    waiting: int = Field(description="Completions still to come")


class Models(Answer):
    """All models."""

    models: list[Model]


class Worker(Answer):
    """A worker process that was heard of within a day."""

    id: str
    model: str
    state: ShownWorkerState = Field(description="`lost`: it was loading or ready, and is not heard of any more")
    host: str
    pid: int
    device: str
    cores: str
    dtype: str
    slots: int
    active: int
    speed: float | None = Field(description="Completions a second")
    load_seconds: float | None
    rss: int | None = Field(description="Bytes")
    error: str | None
    stage: LoadStage | None
    stage_share: float | None
    identity: str | None = Field(description="Digest of what decides which model it runs")
    facts: dict[str, Any] | None
    started: float
    heartbeat: float
    alive: bool


class Workers(Answer):
    """All workers."""

    workers: list[Worker]


class Submitted(Answer):
    """A run that is stored."""

    id: str
    url: str = Field(description="Its page")


class Followed(Answer):
    """A later turn that is stored."""

    id: str = Field(description="Its run")
    url: str = Field(description="The run's page")
    idx: int = Field(description="Index of the later turn among the run's prompts")


class Health(Answer):
    """How the server is."""

    status: str


class Problem(Answer):
    """What is wrong, and what to do next."""

    code: str
    message: str
    field: str | None = Field(description="Path of the field that is wrong, such as `prompts.3.messages.0.role`")


class Error(Answer):
    """Every answer with a status of 400 or more."""

    error: Problem
