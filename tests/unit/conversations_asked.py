"""A run of conversations for one model, asked, claimed and answered by hand."""

from typing import Any

from tasks.conversation import NewPrompt
from tasks.ledger import Ledger
from tasks.ledger.records import Claim, Completion, Environment, NewRun, Run
from tasks.registry import LocalModel
from tasks.states import FinishReason, RunKind

MADE_WITH = Environment("e", {})
ENTRY = LocalModel(name="a", source="m", template="Q: {prompt}", decoding={"temperature": 0.5})
TURNS = [NewPrompt("one", system="be brief"), NewPrompt("two", follows=0), NewPrompt("other")]


def submit(ledger: Ledger, prompts: list[NewPrompt], size: int = 8, **options: Any) -> Run:
    new = NewRun(kind=RunKind.BULK, owner="o", chunk_sizes={"a": size}, sampling={}, entries={"a": ENTRY}, **options)
    return ledger.runs.submit(new, prompts)[0]


def claim(ledger: Ledger, identity: str | None = None) -> Claim | None:
    item = ledger.outbox.dispatch("a", {RunKind.ARENA: 100, RunKind.BULK: 100})
    found = [ledger.chunks.claim(each.chunk, "w", identity) for each in item]
    return next((each for each in found if each), None)


def answer(ledger: Ledger, held: Claim, text: str = "answer", reason: FinishReason = FinishReason.STOP) -> None:
    error = "broken" if reason is FinishReason.ERROR else None
    rows = [
        Completion(held.run, held.model, idx, sample, f"{text} {idx}.{sample}", reason, error=error)
        for idx, sample in held.missing
    ]
    assert ledger.chunks.write(held, rows, MADE_WITH, last=True)
