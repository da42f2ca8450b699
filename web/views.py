"""Records of the ledger as answers of the API."""

from collections.abc import Mapping
from dataclasses import asdict

from tasks.ledger import records
from tasks.measures.answers import completion_phases
from tasks.states import LoadStage
from web.language import TEXTS
from web.schema import answers
from web.schema.states import ShownWorkerState


def run(row: records.Run, waits: Mapping[str, records.Wait]) -> answers.Run:
    """A run; ``waits`` says of each model with something pending why nothing of it gets done now."""
    return answers.Run(
        id=row.id,
        state=row.state,
        kind=row.kind,
        title=row.title,
        priority=row.priority,
        deadline=row.deadline,
        created=row.created,
        finished=row.finished,
        prompts=row.prompts,
        samples=row.samples,
        sampling=dict(row.sampling),
        counts=_counts(row.counts),
        models=[_run_model(row, name, waits.get(name)) for name in row.models],
    )


def progress(row: records.Run, waits: Mapping[str, records.Wait]) -> answers.Progress:
    """How far a run is."""
    shown = {name: wait(found) for name, found in waits.items()}
    return answers.Progress(state=row.state, counts=_counts(row.counts), waits=shown)


def settings(row: records.Run, name: str) -> answers.Settings | None:
    """What a run's model answers with; None for runs of older versions, which did not keep its entry."""
    entry = row.entries.get(name)
    return answers.Settings(**entry.effective(row.sampling)) if entry else None


def wait(found: records.Wait) -> answers.Waits:
    """Why a run's model waits."""
    said = TEXTS[f"wait.{found.reason}"]["en"]
    return answers.Waits(
        reason=found.reason,
        blocked=found.reason.is_blocked,
        message=f"{said} {found.detail}" if found.detail else said,
        detail=found.detail,
        stage=LoadStage(found.stage) if found.stage else None,
        share=found.share,
    )


def completion(row: records.Completion) -> answers.Completion:
    """A completion with its phases."""
    phases = answers.Phases(**asdict(completion_phases(row)))
    return answers.Completion(**asdict(row), is_empty=row.is_empty, phases=phases)


def worker(row: records.Worker) -> answers.Worker:
    """A worker with what its heartbeat says of its state."""
    state = worker_state(row)
    return answers.Worker(**asdict(row) | {"state": state, "stage": LoadStage(row.stage) if row.stage else None})


def worker_state(row: records.Worker) -> ShownWorkerState:
    """The state that a worker told, or that it has not been heard of for too long."""
    state = ShownWorkerState(row.state)
    lives = state in (ShownWorkerState.LOADING, ShownWorkerState.READY)
    return ShownWorkerState.LOST if lives and not row.alive else state


def _run_model(row: records.Run, name: str, found: records.Wait | None) -> answers.RunModel:
    return answers.RunModel(
        name=name,
        counts=_counts(row.models[name]),
        settings=settings(row, name),
        waits=wait(found) if found else None,
    )


def _counts(counts: records.Counts) -> answers.Counts:
    return answers.Counts(**counts.to_dict())
