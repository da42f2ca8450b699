"""Counts what became of the work, as Jepsen's total-queue checker does, and examines the ledger's invariants."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import select

from tasks.ledger import MAX_ATTEMPTS, Ledger
from tasks.ledger.records import Completion, Run
from tasks.ledger.tables import chunk, run_model
from tasks.states import ChunkState, FinishReason, Outcome
from tests.faults.simulated import first_token

T = TypeVar("T")
Key = tuple[str, str, int, int]


@dataclass
class History:
    """What a test has submitted: prompts by the first of them, which no other submission has, and run ids that were
    acknowledged, with their first prompt.
    """

    simulated: bool = True  # completions can be checked against their prompts
    attempted: dict[str, list[str]] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)

    def attempt(self, prompts: list[str]) -> None:
        assert prompts[0] not in self.attempted
        self.attempted[prompts[0]] = prompts


@dataclass(frozen=True)
class Verdict:
    """Numbers of completions. ``lost``: acknowledged, but without a terminal row. ``unexpected``: never asked for, or
    not an answer to its prompt. ``duplicated``: seen twice, or counted twice. ``recovered``: never acknowledged, but
    done. ``outcomes`` counts the terminal rows.
    """

    acknowledged: int
    lost: int
    unexpected: int
    duplicated: int
    recovered: int
    outcomes: Counter[Outcome]


def check(ledger: Ledger, history: History) -> Verdict:
    """To be called after a full drain. Raises AssertionError where an invariant is broken."""
    runs = [run for page in iter_pages(lambda offset: ledger.runs.newest(100, offset)) for run in page]
    by_id = {run.id: run for run in runs}
    seen: Counter[Key] = Counter()
    wrong = recovered = 0
    outcomes: Counter[Outcome] = Counter()
    for run in runs:
        rows = completions(ledger, run.id)
        prompts = history.attempted.get(ledger.runs.prompts(run.id, 0, 1)[0].text, [])
        for row in rows:
            seen[row.run, row.model, row.idx, row.sample] += 1
            outcomes[row.finish_reason.outcome] += 1
            wrong += row.idx >= len(prompts) or (history.simulated and not answers(row, prompts[row.idx]))
            recovered += run.id not in history.acknowledged
            assert row.attempt <= MAX_ATTEMPTS, "I5: at most three attempts"
        assert_counts(run, rows)
    assert_at_rest(ledger)
    expected = {
        (run_id, model, idx, sample)
        for run_id, first in history.acknowledged.items()
        for model in (by_id[run_id].models if run_id in by_id else ["?"])
        for idx in range(len(history.attempted[first]))
        for sample in range(by_id[run_id].samples if run_id in by_id else 1)
    }
    duplicated = sum(number - 1 for number in seen.values())
    return Verdict(len(expected), len(expected - seen.keys()), wrong, duplicated, recovered, outcomes)


def completions(ledger: Ledger, run_id: str) -> list[Completion]:
    return list(ledger.completions.every(run_id))


def iter_pages(read: Callable[[int], list[T]]) -> Iterable[list[T]]:
    offset = 0
    while page := read(offset):
        yield page
        offset += len(page)


def answers(row: Completion, prompt: str) -> bool:
    """Whether a simulated completion belongs to its prompt; one that ended early may be empty."""
    whole = row.finish_reason is FinishReason.LENGTH
    return row.text.startswith(first_token(prompt)) if whole or row.text else True


def assert_counts(run: Run, rows: list[Completion]) -> None:
    counted = Counter(row.finish_reason.outcome for row in rows)
    counts = run.counts
    assert (counts.done, counts.failed, counts.cancelled) == tuple(counted[o] for o in Outcome), "I11: counts are true"
    assert counts.pending == 0 and counts.total == len(rows), "I2: one terminal row each"
    assert run.state.is_final and run.finished is not None


def assert_at_rest(ledger: Ledger) -> None:
    is_open = chunk.c.state.in_([ChunkState.PENDING, ChunkState.QUEUED, ChunkState.LEASED])
    open_chunks = select(chunk.c.id).where(chunk.c.token.is_not(None) | is_open)
    too_many = select(run_model.c.run).where(
        run_model.c.total < run_model.c.done + run_model.c.failed + run_model.c.cancelled
    )
    with ledger.database.read() as connection:
        assert not connection.execute(open_chunks).all(), "I4: no token and no open chunk at rest"
        assert not connection.execute(too_many).all(), "I11: never more ended than there are"
