"""What a run looks like in the tables, for tests of what adding to it leaves as it was."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, select

from tasks.conversation import NewPrompt
from tasks.ledger import Ledger
from tasks.ledger.records import Claim, Completion, Environment, NewRun, Rendered, Run
from tasks.ledger.tables import chunk, completion, prompt, rendering, run_model, score
from tasks.registry import ModelEntry, Registry
from tasks.settings import ROOT
from tasks.states import FinishReason, RunKind
from tests.clock import pass_time

MADE_WITH = Environment("e1", {"torch": "2"})
ALL = {RunKind.ARENA: 1000, RunKind.BULK: 1000}
TABLES = (prompt, completion, rendering, score)


def entry() -> ModelEntry:
    """An entry of the registry; which one does not matter."""
    registry = Registry.load(ROOT / "models.toml")
    return registry.get(registry.names[0])


def submit(ledger: Ledger, prompts: list[NewPrompt] | int = 4, models: str = "ab", **changes: Any) -> Run:
    given = [NewPrompt(f"prompt {i}") for i in range(prompts)] if isinstance(prompts, int) else prompts
    new = NewRun(RunKind.BULK, "owner", dict.fromkeys(models, changes.pop("size", 2)), {"seed": 1}, **changes)
    return ledger.runs.submit(new, given)[0]


def answer(ledger: Ledger, claim: Claim, reason: FinishReason = FinishReason.STOP) -> None:
    rows = [
        Completion(claim.run, claim.model, *key, f"{claim.model} {key}", reason, attempt=claim.attempt)
        for key in claim.missing
    ]
    assert ledger.chunks.write(claim, rows, MADE_WITH, True, {key: Rendered("seen", (1,)) for key in claim.missing})


def claims(ledger: Ledger, model: str) -> Iterator[Claim]:
    for item in ledger.outbox.dispatch(model, ALL):
        if claim := ledger.chunks.claim(item.chunk, "w"):
            yield claim


def work_off(ledger: Ledger, run_id: str, reason: FinishReason = FinishReason.STOP) -> Run:
    """Answer all that waits of a run, as its models' workers would."""
    for _ in range(10):
        for model in ledger.runs.get(run_id).models:
            for claim in claims(ledger, model):
                answer(ledger, claim, reason)
        pass_time(ledger, 5.0)
        ledger.sweeper.sweep(60)
    return ledger.runs.get(run_id)


def rows(ledger: Ledger, run_id: str) -> dict[str, set[Any]]:
    """Every row of a run but its counts and chunks, by table."""
    with ledger.database.read() as connection:
        return {
            table.name: {str(row) for row in connection.execute(select(table).where(table.c.run == run_id))}
            for table in TABLES
        }


def covered(ledger: Ledger, run_id: str, model: str) -> list[tuple[int, int]]:
    """The (idx, sample) that the chunks of a run's model are for, in order and as often as they are."""
    with ledger.database.read() as connection:
        found = connection.execute(select(chunk).where(chunk.c.run == run_id, chunk.c.model == model)).all()
    return sorted(
        (idx, sample)
        for one in found
        for idx in range(one.first, one.first + one.count)
        for sample in range(one.first_sample, one.first_sample + one.samples)
    )


def number_of_rows(ledger: Ledger) -> int:
    with ledger.database.read() as connection:
        tables = (*TABLES, chunk, run_model)
        return sum(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)
