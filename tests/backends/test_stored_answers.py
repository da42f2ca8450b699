"""Chunks whose answers are there already, or are being computed by somebody else, on their way through workers."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from celery import Celery

from tasks.conversation import NewPrompt
from tasks.errors import Unavailable
from tasks.ledger import Ledger
from tasks.ledger.records import Completion, NewRun, Run
from tasks.queue.dispatch import Dispatcher
from tasks.queue.live import Live
from tasks.settings import Settings
from tasks.states import FinishReason, Origin, RunKind
from tests.backends.test_local import ENTRY, ENVIRONMENT, EchoEngine, work_off
from tests.faults.processes import until
from worker.backends.answer_keys import LocalKeys
from worker.backends.local import LocalBackend
from worker.backends.loop import EngineLoop
from worker.backends.protocol import Description
from worker.bench.simulated import InProcess
from worker.bench.text_renderer import TextRenderer
from worker.chunk_work import ChunkWork
from worker.engine.protocol import Event as EngineEvent
from worker.executor import ChunkExecutor

GREEDY = {"temperature": 0.0}
COMPUTED, CACHED = Origin.COMPUTED, Origin.CACHED


class HeldEngine(EchoEngine):
    """Answers nothing while it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()

    def step(self, emit: Callable[[EngineEvent], None]) -> None:
        if self.free.wait(0.01):
            super().step(emit)


class Worker:
    """A worker within this process, over an engine that echoes."""

    def __init__(self, ledger: Ledger, settings: Settings, name: str):
        self.ledger, self.engine = ledger, HeldEngine()
        loop = EngineLoop(self.engine)
        loop.start()
        made = Description(ENVIRONMENT, "cpu", "none", 4, 0.0)
        self.executor = ChunkExecutor(
            entry=ENTRY,
            backend=LocalBackend(loop, TextRenderer(), made, LocalKeys({"model": "echo"}, 10_000)),
            ledger=ledger,
            dispatcher=Dispatcher(cast(Celery, InProcess()), ledger, settings),
            live=Live(settings.redis_url),
            settings=settings,
            worker=name,
        )

    def do(self, *prompts: NewPrompt | str, **options: Any) -> list[Completion]:
        """The completions of a new run."""
        run = submit(self.ledger, *prompts, **options)
        work_off(self.ledger, self.executor)
        return rows_of(self.ledger, run)

    @contextmanager
    def doing(self) -> Iterator[None]:
        """Work off what there is beside what is done within."""
        thread = threading.Thread(target=work_off, args=(self.ledger, self.executor))
        thread.start()
        yield
        thread.join(20)
        assert not thread.is_alive()


def submit(ledger: Ledger, *prompts: NewPrompt | str, kind: RunKind = RunKind.BULK, **options: Any) -> Run:
    new = NewRun(kind, "o", {"a": 8}, GREEDY | options.pop("sampling", {}), entries={"a": ENTRY})
    asked = [NewPrompt(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    return ledger.runs.submit(replace(new, **options), asked)[0]


def rows_of(ledger: Ledger, run: Run) -> list[Completion]:
    assert ledger.runs.get(run.id).finished
    return ledger.completions.page(run.id)


def origins(rows: list[Completion]) -> list[Origin]:
    return [row.origin for row in rows]


@pytest.fixture
def quick(settings: Settings) -> Settings:
    return replace(settings, lease=1.5, renew=0.2, drain=0.2)


@pytest.fixture
def workers(quick: Settings) -> Iterator[tuple[Worker, Worker]]:
    ledger = Ledger(quick)
    yield Worker(ledger, quick, "v"), Worker(ledger, quick, "w")
    ledger.close()


def test_what_was_answered_before_is_answered_with_the_same_and_nothing_is_computed(
    workers: tuple[Worker, Worker],
) -> None:
    prompts = [NewPrompt("one"), NewPrompt("two", follows=0), NewPrompt("apart")]
    first, again = workers[0].do(*prompts), workers[1].do(*prompts)
    assert origins(first) == [COMPUTED] * 3 and origins(again) == [CACHED] * 3 and not workers[1].engine.seen
    for old, new in zip(first, again, strict=True):
        same = ("text", "finish_reason", "prompt_tokens", "output_tokens", "characters", "environment")
        assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
        assert new.cache_key == old.cache_key is not None
        assert not (new.claimed or new.admitted or new.first_token or new.last_token or new.cold)
    shown = workers[1].ledger.completions.rendering(again[1].run, "a", 1)
    assert shown and shown.text == "one\n[one]\ntwo"
    assert workers[0].executor.speed.value and workers[1].executor.speed.value is None


@pytest.mark.parametrize(
    "changed",
    [
        {"fresh": True},
        {"kind": RunKind.ARENA},
        {"sampling": {"temperature": 0.5}},
        {"sampling": {"max_new_tokens": 9}},
        {"sampling": {"stop": ["."]}},
    ],
    ids=str,
)
def test_what_asks_for_anew_or_for_something_else_is_computed(
    workers: tuple[Worker, Worker], changed: dict[str, Any]
) -> None:
    workers[0].do("one")
    assert origins(workers[0].do("one", **changed)) == [COMPUTED]


def test_another_seed_is_another_question_and_the_same_is_not(workers: tuple[Worker, Worker]) -> None:
    chance = {"temperature": 1.0}
    found = [workers[0].do("one", sampling=chance | {"seed": seed})[0].origin for seed in (1, 2, 1)]
    assert found == [COMPUTED, COMPUTED, CACHED]


def test_what_a_person_watched_is_stored_for_nobody_and_a_fresh_answer_for_all(workers: tuple[Worker, Worker]) -> None:
    assert workers[0].do("one", kind=RunKind.ARENA)[0].cache_key is None
    assert origins(workers[0].do("one", fresh=True)) == [COMPUTED]
    assert origins(workers[0].do("one")) == [CACHED]


def test_prompts_that_are_alike_are_computed_once_and_samples_never_folded(workers: tuple[Worker, Worker]) -> None:
    rows = workers[0].do("one", "one", "two", samples=2)
    assert sorted(workers[0].engine.seen) == ["one", "one", "two", "two"]
    assert [origins([row])[0] for row in rows if row.idx == 1] == [CACHED, CACHED]
    assert origins(workers[0].do("one", "one", fresh=True)) == [COMPUTED, COMPUTED]


def test_a_failure_is_stored_for_nobody(workers: tuple[Worker, Worker]) -> None:
    first, again = workers[0].do("!one", "!one", "two"), workers[0].do("!one")
    assert [row.error for row in first] == ["it fails", "it fails", None] and origins(first) == [COMPUTED] * 3
    assert [row.cache_key for row in first[:2]] == [None, None] and origins(again) == [COMPUTED]


def test_what_another_worker_computes_is_waited_for(workers: tuple[Worker, Worker]) -> None:
    one, other = workers
    one.engine.free.clear()
    first = submit(one.ledger, "one", "two")
    with one.doing():
        until(lambda: one.engine.active == 2, 10, "it is being computed")
        second = submit(one.ledger, "one", "two", NewPrompt("on", follows=1), "three")
        with other.doing():
            until(lambda: "three" in other.engine.seen, 10, "what nobody computes is computed")
            time.sleep(2.0)  # longer than a lease, which is kept
            assert other.executor.running == 1 and not other.engine.active
            one.engine.free.set()
    assert origins(rows_of(one.ledger, first)) == [COMPUTED] * 2
    assert origins(rows_of(one.ledger, second)) == [CACHED, CACHED, COMPUTED, COMPUTED]
    assert other.engine.seen == ["three", "two\n[two]\non"]


def test_chunks_of_one_worker_tell_each_other(workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    worker, _ = workers
    monkeypatch.setattr("worker.executor.AGAIN_SECONDS", 1000.0)
    worker.engine.free.clear()
    submit(worker.ledger, "one")
    with worker.doing():
        until(lambda: worker.engine.active == 1, 10, "it is being computed")
        second = submit(worker.ledger, "one")
        with worker.doing():
            until(lambda: worker.executor.running == 2, 10, "another awaits it")
            time.sleep(0.2)
            worker.engine.free.set()
    assert origins(rows_of(worker.ledger, second)) == [CACHED] and worker.engine.seen == ["one"]


@pytest.mark.parametrize("how", ["cancelled", "late", "stopped"])
def test_what_waits_for_another_worker_can_be_ended(workers: tuple[Worker, Worker], how: str) -> None:
    one, other = workers
    one.engine.free.clear()
    submit(one.ledger, "one")
    with one.doing():
        until(lambda: one.engine.active == 1, 10, "it is being computed")
        second = submit(one.ledger, "one", NewPrompt("two", follows=0), deadline=0.5 if how == "late" else None)
        with other.doing():
            until(lambda: other.executor.running == 1, 10, "it is awaited")
            if how == "cancelled":
                one.ledger.control.cancel(second.id)
            if how == "stopped":
                other.executor.stopping = time.monotonic()
        assert not other.engine.seen
        one.engine.free.set()
    reasons = [row.finish_reason for row in one.ledger.completions.page(second.id)]
    ends = {"cancelled": [FinishReason.CANCELLED] * 2, "late": [FinishReason.DEADLINE, FinishReason.ERROR]}
    assert reasons == ends.get(how, []), "a worker that stops gives back what it has"


def test_who_dies_keeps_nobody_waiting_for_longer_than_its_lease(workers: tuple[Worker, Worker]) -> None:
    one, other = workers
    submit(one.ledger, "one")
    (item,) = one.ledger.outbox.dispatch("a", {RunKind.ARENA: 1, RunKind.BULK: 1})
    claim = one.ledger.chunks.claim(item.chunk, "dead", ENTRY.identity)
    assert claim
    second = submit(one.ledger, "one")
    key = other.executor._generation(ChunkWork(claim), (0, 0)).answer_key
    assert key
    assert one.ledger.stored_answers.take(claim, [key]).ours == {key}
    with other.doing():
        until(lambda: other.executor.running == 1, 10, "it is awaited")
        assert not other.engine.seen
    assert origins(rows_of(one.ledger, second)) == [COMPUTED]


def test_while_the_ledger_is_away_everything_is_computed(
    workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: Any) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(workers[0].ledger.stored_answers, "take", away)
    assert origins(workers[0].do("one") + workers[0].do("one")) == [COMPUTED] * 2
