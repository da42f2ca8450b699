"""Worker processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.states import WorkerState


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
