"""Why a run's model gets nothing done now (I14: nothing waits without a reason that is shown)."""

from collections.abc import Collection, Sequence

from tasks.ledger.records import Run, Wait, Worker
from tasks.ledger.workers import Workers
from tasks.states import RunState, WaitReason, WorkerState


class Waits:
    def __init__(self, workers: Workers):
        self.workers = workers

    def of_run(self, run: Run, registered: Collection[str]) -> dict[str, Wait]:
        """The reason for each model of the run of which something is pending; ``registered`` are today's models."""
        pending = [model for model, counts in run.models.items() if counts.pending]
        if not pending or run.state is RunState.CANCELLED:
            return {}
        workers = self.workers.all()
        return {
            model: self._reason(run, model, [worker for worker in workers if worker.model == model], registered)
            for model in pending
        }

    def _reason(self, run: Run, model: str, workers: Sequence[Worker], registered: Collection[str]) -> Wait:
        if run.state is RunState.PAUSED:
            return Wait(WaitReason.PAUSED)
        entry = run.entries.get(model)
        alive = [worker for worker in workers if worker.alive]
        ready = [worker for worker in alive if worker.state is WorkerState.READY]
        if any(entry is None or worker.identity in (None, entry.identity) for worker in ready):
            return Wait(WaitReason.BUSY)
        loading = next((worker for worker in alive if worker.state is WorkerState.LOADING), None)
        if loading:
            return Wait(WaitReason.LOADING, stage=loading.stage, share=loading.stage_share)
        if ready:
            return Wait(WaitReason.OTHER_ENTRY)
        if model not in registered:
            return Wait(WaitReason.REMOVED)
        newest = max(workers, key=lambda worker: worker.started, default=None)
        if newest and newest.state is WorkerState.FAILED:
            return Wait(WaitReason.FAILED, newest.error)
        if newest and newest.state is WorkerState.LOST:
            return Wait(WaitReason.LOST)
        return Wait(WaitReason.NO_WORKER)
