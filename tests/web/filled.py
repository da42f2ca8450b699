"""A ledger with everything that can be seen in one: filled by hand, as workers and people would fill it."""

from collections.abc import Iterator
from typing import Any

from tasks.conversation import Message, NewPrompt, Role
from tasks.ledger import Ledger
from tasks.ledger.records import Claim, Completion, Environment, NewRun, Rendered, Worker
from tasks.registry import LocalModel, ModelEntry, Registry
from tasks.settings import Settings
from tasks.states import FinishReason, RunKind, WorkerState

LANES = {RunKind.ARENA: 99, RunKind.BULK: 99}
MODELS = ("poet-small", "poet-large")
EVIL = "</script><script>alert('&')</script>"
GONE = LocalModel(name="gone", source="../gone")


def take(ledger: Ledger, model: str) -> Iterator[Claim]:
    """Claim whatever waits for a model, each when the one before is dealt with."""
    for item in ledger.outbox.dispatch(model, LANES):
        claim = ledger.chunks.claim(item.chunk, f"w-{model}")
        if claim:
            yield claim


def register(ledger: Ledger, model: str, state: WorkerState = WorkerState.READY, **facts: Any) -> None:
    """A worker that has just been heard of."""
    given: dict[str, Any] = {"host": "h", "pid": 1, "device": "cpu", "cores": "0", "dtype": "float32", "slots": 4}
    ledger.workers.register(Worker(f"w-{model}", model, state, **given | facts))


def completion(claim: Claim, idx: int, sample: int, text: str, **facts: Any) -> Completion:
    """One with every field known."""
    times = ("created", "enqueued", "claimed", "admitted", "first_token", "last_token")
    given: dict[str, Any] = {name: 100.0 + moment for moment, name in enumerate(times)}
    given |= {"prompt_tokens": 3, "output_tokens": 9, "characters": len(text), "batch_size": 2, "seed": 7}
    given |= {"worker": "w", "peak_rss": 1, "peak_device_memory": 2, "energy_joules": 0.5, "environment": "e"}
    return Completion(claim.run, claim.model, idx, sample, text, FinishReason.STOP, attempt=1, **given | facts)


def conversation(ledger: Ledger, settings: Settings, *models: str) -> str:
    """A run of one conversation with two turns whose first is answered, with thinking, and nothing by the second."""
    registry = Registry.load(settings.models).models
    entries: dict[str, ModelEntry] = {name: registry.get(name, GONE) for name in models or MODELS}
    sizes = dict.fromkeys(entries, 8)
    new = NewRun(RunKind.ARENA, "o", sizes, {"temperature": 0.5}, samples=1, title="问候", entries=entries)
    history = (Message(Role.USER, f"第一句 {EVIL}"), Message(Role.ASSISTANT, f"第二句 {EVIL}"))
    first = NewPrompt(f"你好 {EVIL}", f"简短 {EVIL}", history, custom_id=f"id {EVIL}", tags=(EVIL,), category=EVIL)
    run, _ = ledger.runs.submit(new, [first])
    ledger.growth.follow(run.id, NewPrompt(f"再见 {EVIL}", follows=0))
    return run.id


def answer(ledger: Ledger) -> None:
    """The first model answers the first turn after some thinking, and then nothing at all."""
    for claim in take(ledger, MODELS[0]):
        for idx, sample in claim.missing:
            thought: dict[str, Any] = {"thinking": f"嗯 {EVIL}", "thinking_tokens": 4, "answer_started": 104.5}
            row = completion(claim, idx, sample, "" if idx else f"您好 {EVIL}", **thought)
            rendered = {(idx, sample): Rendered(f"<s>你好 {EVIL}", (1, 2, 3))}
            assert ledger.chunks.write(claim, [row], Environment("e", {"torch": "2"}), rendered=rendered)
        ledger.chunks.finish(claim)
