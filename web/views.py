"""Records of the ledger as answers of the API."""

from collections.abc import Mapping
from dataclasses import asdict

from tasks.conversation import NewPrompt
from tasks.errors import TouchstoneError
from tasks.files.read.answers import Problems
from tasks.files.read.reading import Preview, Problem
from tasks.ledger import records
from tasks.measures.answers import completion_phases
from tasks.measures.estimate import Estimate
from tasks.states import LoadStage
from web.language import TEXTS
from web.schema import answers
from web.schema.states import ShownWorkerState


def run(row: records.Run, waits: Mapping[str, records.Wait], left: Estimate | None) -> answers.Run:
    """A run; ``waits`` says of each model why nothing of it gets done now, ``left`` how long what is pending takes."""
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
        prompt_set=row.prompt_set,
        set_name=row.set_name,
        fresh=row.fresh,
        batch=row.batch,
        sampling=dict(row.sampling),
        counts=_counts(row.counts),
        estimate=estimate(left) if left else None,
        models=[_run_model(row, name, waits.get(name)) for name in row.models],
    )


def estimate(found: Estimate) -> answers.Estimate:
    """How long a run takes."""
    models = [
        answers.ModelEstimate(name=name, **asdict(one) | {"reason": one.reason.words if one.reason else None})
        for name, one in found.models.items()
    ]
    return answers.Estimate(low=found.low, high=found.high, models=models)


def prompt_set(row: records.PromptSet) -> answers.PromptSet:
    """A set of prompts that has a name."""
    return answers.PromptSet(digest=row.digest, name=row.name, prompts=row.prompts, runs=row.runs)


def summary(row: records.Run) -> answers.RunSummary:
    """A run in a list."""
    return answers.RunSummary(
        id=row.id,
        title=row.title,
        state=row.state,
        kind=row.kind,
        created=row.created,
        finished=row.finished,
        prompts=row.prompts,
        samples=row.samples,
        prompt_set=row.prompt_set,
        set_name=row.set_name,
        counts=_counts(row.counts),
        models=list(row.models),
    )


def prompt(row: NewPrompt, idx: int) -> answers.Prompt:
    """A prompt of a run or of a file."""
    return answers.Prompt(
        idx=idx,
        messages=[answers.SaidMessage(role=said.role, content=said.content) for said in row.messages],
        follows=row.follows,
        category=row.category,
        reference=row.reference,
        checks=[dict(check) for check in row.checks],
        tags=list(row.tags),
        variables=None if row.variables is None else dict(row.variables),
        custom_id=row.custom_id,
        sampling=None if row.sampling is None else dict(row.sampling),
    )


def score(row: records.ScoreRow) -> answers.Score:
    """What was measured of a completion."""
    return answers.Score(model=row.model, idx=row.idx, sample=row.sample, values=dict(row.values))


def upload(row: records.Upload, seen: Preview | None, error: TouchstoneError | None = None) -> answers.Upload:
    """A file with what it holds, or why that cannot be told."""
    return answers.Upload(
        id=row.id,
        name=row.name,
        bytes=row.bytes,
        preview=preview(seen) if seen else None,
        problem=answers.Problem(code=error.code, message=error.message, field=error.field) if error else None,
    )


def preview(seen: Preview) -> answers.Preview:
    """What a file holds."""
    return answers.Preview(
        reading=seen.reading.model_dump(mode="json"),
        guessed=list(seen.guessed),
        columns=list(seen.columns),
        first=[prompt(row, idx) for idx, row in enumerate(seen.first)],
        prompts=seen.prompts,
        problem_count=seen.problem_count,
        problems=[_line_problem(problem) for problem in seen.problems],
        notes=list(seen.notes),
        lengths={str(length): number for length, number in sorted(seen.lengths.items())},
    )


def imported(found: records.Imported, problems: Problems) -> answers.Imported:
    """What came of answers that were handed in; ``problems`` are of lines that hold none."""
    return answers.Imported(
        columns=list(found.columns),
        taken=found.taken,
        unmatched_count=found.unmatched_count,
        unmatched=list(found.unmatched),
        problem_count=problems.count,
        problems=[_line_problem(problem) for problem in problems.first],
    )


def progress(row: records.Run, waits: Mapping[str, records.Wait], left: Estimate | None) -> answers.Progress:
    """How far a run is, and how long what is pending takes."""
    shown = {name: wait(found) for name, found in waits.items()}
    took = estimate(left) if left else None
    return answers.Progress(state=row.state, counts=_counts(row.counts), waits=shown, estimate=took)


def settings(row: records.Run, name: str) -> answers.Settings | None:
    """What a run's model answers with; None for runs of older versions, which did not keep its entry."""
    entry = row.entries.get(name)
    return answers.Settings(**entry.effective(row.samplings.get(name, row.sampling))) if entry else None


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


def _line_problem(problem: Problem) -> answers.LineProblem:
    return answers.LineProblem(line=problem.line, reason=problem.reason, remedy=problem.remedy)


def _run_model(row: records.Run, name: str, found: records.Wait | None) -> answers.RunModel:
    return answers.RunModel(
        name=name,
        origin=row.origins[name],
        counts=_counts(row.models[name]),
        settings=settings(row, name),
        waits=wait(found) if found else None,
    )


def _counts(counts: records.Counts) -> answers.Counts:
    return answers.Counts(**counts.to_dict())
