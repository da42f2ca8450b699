"""Answers about models and workers."""

from typing import Any

from pydantic import Field

from tasks.registry.entry import BackendKind
from tasks.states import LoadStage
from web.schema.answers.base import Answer, Texts
from web.schema.states import ModelState, ShownWorkerState


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
