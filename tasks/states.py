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


class Origin(StrEnum):
    """Where a completion comes from; only those that were computed for their run have a latency."""

    COMPUTED = "computed"
    CACHED = "cached"  # the stored answer to exactly the same question
    IMPORTED = "imported"  # made elsewhere and handed in


class Outcome(StrEnum):
    """How a finished completion is counted."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WorkerState(StrEnum):
    """loading → ready → stopped, or failed; lost, which is not stored: it was last heard of too long ago."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


class LoadStage(StrEnum):
    """What a worker does before it is ready."""

    STARTING = "starting"
    DOWNLOADING = "downloading"
    CONVERTING = "converting"  # once a file, into a cache
    READING = "reading"
    BUILDING_KERNELS = "building_kernels"  # once a machine
    PREPARING = "preparing"  # packing and recording
    STARTING_SERVER = "starting_server"
    WARMING_UP = "warming_up"


class WaitReason(StrEnum):
    """Why a run's model gets nothing done now (I14); the last five end only when somebody does something."""

    PAUSED = "paused"
    BUSY = "busy"  # a worker is ready; others are before it, or it is just beginning
    LOADING = "loading"
    NO_WORKER = "no_worker"
    FAILED = "failed"  # its worker cannot load it
    LOST = "lost"  # its worker was last heard of too long ago
    OTHER_ENTRY = "other_entry"  # a worker of that name runs another model than the run was made with
    REMOVED = "removed"  # the model has left the registry

    @property
    def is_blocked(self) -> bool:
        return self in (
            WaitReason.NO_WORKER,
            WaitReason.FAILED,
            WaitReason.LOST,
            WaitReason.OTHER_ENTRY,
            WaitReason.REMOVED,
        )
