"""States that are shown and not stored: what a worker's heartbeat and a model's workers amount to."""

from enum import StrEnum


class ShownWorkerState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"  # it was loading or ready, and is not heard of any more


class ModelState(StrEnum):
    """The best that can be said of a model's workers."""

    READY = "ready"
    LOADING = "loading"
    FAILED = "failed"  # the newest worker could not load it
    LOST = "lost"
    NO_WORKER = "no_worker"
    REMOVED = "removed"  # the model has left the registry, and runs still wait for it
