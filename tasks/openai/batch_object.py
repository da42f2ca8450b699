"""A batch as OpenAI's interface shows it: its state is made of its runs, whenever somebody asks."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from tasks.ledger.batches import Batch, LineCounts
from tasks.ledger.records import Run
from tasks.states import RunState


class BatchStatus(StrEnum):
    """``validating`` is never seen: a file is looked through before the batch is there."""

    FAILED = "failed"  # its file was refused
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"  # every line has ended or its time is over; its runs are just being closed
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self not in (BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)


def status_of(batch: Batch, runs: Sequence[Run], now: float) -> BatchStatus:
    """The status of a batch at the time ``now``, in seconds since 1970 by the ledger's clock."""
    if batch.problems:
        return BatchStatus.FAILED
    open_runs = [run for run in runs if run.finished is None]
    cut_short = any(run.state is RunState.CANCELLED for run in runs) or not runs
    if batch.cancelling is not None:
        return BatchStatus.CANCELLING if open_runs else BatchStatus.CANCELLED
    if open_runs:
        pending = any(run.counts.pending for run in open_runs)
        return BatchStatus.IN_PROGRESS if pending and now < batch.expires else BatchStatus.FINALIZING
    if cut_short:
        return BatchStatus.EXPIRED if _ended(runs, batch) >= batch.expires else BatchStatus.CANCELLED
    return BatchStatus.COMPLETED


def batch_object(batch: Batch, runs: Sequence[Run], lines: LineCounts, status: BatchStatus) -> dict[str, Any]:
    """The batch with all its points of time."""
    ended = int(_ended(runs, batch)) if status.has_ended else None
    output = output_id(batch.id) if status.has_ended and lines.completed else None
    errors = errors_id(batch.id) if status.has_ended and lines.failed else None
    is_over = status in (BatchStatus.CANCELLING, BatchStatus.CANCELLED)
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": list(batch.problems)} if batch.problems else None,
        "input_file_id": batch.upload,
        "completion_window": batch.window,
        "status": status,
        "output_file_id": output,
        "error_file_id": errors,
        "created_at": int(batch.created),
        "in_progress_at": None if status is BatchStatus.FAILED else int(batch.created),
        "expires_at": int(batch.expires),
        "finalizing_at": ended if status is BatchStatus.COMPLETED else None,
        "completed_at": ended if status is BatchStatus.COMPLETED else None,
        "failed_at": int(batch.created) if status is BatchStatus.FAILED else None,
        "expired_at": int(batch.expires) if status is BatchStatus.EXPIRED else None,
        "cancelling_at": int(batch.cancelling or batch.created) if is_over else None,
        "cancelled_at": ended if status is BatchStatus.CANCELLED else None,
        "request_counts": {"total": lines.total, "completed": lines.completed, "failed": lines.failed},
        "metadata": dict(batch.metadata) if batch.metadata else None,
    }


def output_id(batch_id: str) -> str:
    """Id of the file with the answers of a batch."""
    return f"file-{batch_id}-output"


def errors_id(batch_id: str) -> str:
    """Id of the file with the lines that failed."""
    return f"file-{batch_id}-errors"


def _ended(runs: Sequence[Run], batch: Batch) -> float:
    """When the last of the runs ended; where none is left, because people deleted them, when the batch was made."""
    return max((run.finished or batch.expires for run in runs), default=batch.created)
