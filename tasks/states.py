"""States and kinds that are stored in the ledger, as enums whose values are the stored strings."""

from enum import StrEnum


class RunKind(StrEnum):
    """An arena run is watched by a person and goes first; a bulk run is a file of prompts."""

    ARENA = "arena"
    BULK = "bulk"


class RunState(StrEnum):
    """pending → running (something of it was claimed) → done or cancelled; paused: nothing new of it is started.

    A deleted run is there for nobody; its rows go in small portions.
    """

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"
    DELETED = "deleted"

    @property
    def is_final(self) -> bool:
        return self in (RunState.DONE, RunState.CANCELLED)


class RunAction(StrEnum):
    """What may be done to a run, besides deleting it and changing its priority."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"


class ChunkState(StrEnum):
    """pending → queued (a message is out) → leased (a worker holds it) → done, cancelled or failed."""

    PENDING = "pending"
    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"  # an end-of-text token
    STOP_STRING = "stop_string"
    LENGTH = "length"  # max_new_tokens
    CONTEXT = "context"  # the model's context is full
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    ERROR = "error"

    @property
    def outcome(self) -> "Outcome":
        if self is FinishReason.CANCELLED:
            return Outcome.CANCELLED
        return Outcome.FAILED if self in (FinishReason.ERROR, FinishReason.DEADLINE) else Outcome.DONE


class Outcome(StrEnum):
    """How a finished completion is counted."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WorkerState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"
