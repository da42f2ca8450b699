"""Our own engine as a backend: what it tells of a generation, and a chunk of turns on its way through a worker."""

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from celery import Celery

from tasks.conversation import Message, NewPrompt, Role
from tasks.errors import Unavailable
from tasks.ledger import Ledger
from tasks.ledger.records import Environment, NewRun, Rendered, Run
from tasks.queue.dispatch import Dispatcher
from tasks.queue.live import Live, LiveEvent
from tasks.registry import LocalModel, ModelEntry
from tasks.sampling import Sampling
from tasks.settings import Settings
from tasks.states import FinishReason, RunKind
from worker.backends.local import LocalBackend
from worker.backends.loop import EngineLoop
from worker.backends.protocol import Answer, Description, Event, Generation, Increment
from worker.backends.thinking import KNOWN_MARKS, ThinkingSplitter
from worker.bench.simulated import InProcess
from worker.bench.text_renderer import TextRenderer
from worker.engine.protocol import Delta, Request, Result
from worker.engine.protocol import Event as EngineEvent
from worker.executor import ChunkExecutor

ENTRY = LocalModel(name="a", source="m")
ENVIRONMENT = Environment("e", {})


class EchoEngine:
    """Answers with its last line, in brackets unless it thinks; ~ is left out, ! fails, 0 and 1 bring a NUL."""

    slots = 4

    def __init__(self) -> None:
        self.progress = 0
        self.seen: list[str] = []
        self.seeds: set[int] = set()
        self._waiting: list[Request] = []

    @property
    def active(self) -> int:
        return len(self._waiting)

    def add(self, request: Request) -> None:
        self._waiting.append(request)

    def cancel(self, request_id: str) -> None:
        """Nothing is open for longer than a step."""

    def step(self, emit: Callable[[EngineEvent], None]) -> None:
        for request in self._waiting:
            self.progress += 1
            prompt = str(request.prompt)
            self.seen.append(prompt)
            self.seeds.add(request.sampling.seed)
            last = prompt.rsplit("\n", 1)[-1]
            text = last if last.startswith("<") else prompt[1:] if prompt.startswith("~") else f"[{last}]"
            text = f"\x00{text}" if last.startswith("0") else text
            failed = {"!": "it fails", "1": "it\x00 fails\ud800"}.get(last[:1])
            now = time.monotonic()
            if request.streams:
                for piece in text:
                    emit(Delta(request.id, piece))
            reason = FinishReason.ERROR if failed else FinishReason.STOP
            emit(Result(request.id, text, reason, len(prompt), len(text), now, now, now, 1, failed))
        self._waiting.clear()


class ThinkingRenderer(TextRenderer):
    def splitter(self, rendered: Rendered) -> ThinkingSplitter | None:
        return ThinkingSplitter(KNOWN_MARKS[0], opened=False)


def make_backend(renderer: TextRenderer) -> tuple[LocalBackend, EchoEngine]:
    engine = EchoEngine()
    loop = EngineLoop(engine)
    loop.start()
    return LocalBackend(loop, renderer, Description(ENVIRONMENT, "cpu", "none", 4, 0.0)), engine


def events_of(backend: LocalBackend, text: str, streams: bool = True) -> Iterator[Event]:
    told: queue.SimpleQueue[Event] = queue.SimpleQueue()
    conversation = (Message(Role.USER, text),)
    backend.submit(Generation("g", conversation, ENTRY, Sampling(), streams=streams), told.put)
    while True:
        event = told.get(timeout=10)
        yield event
        if not isinstance(event, Increment):
            return


@pytest.mark.parametrize("streams", [True, False])
def test_thinking_is_told_apart_whether_somebody_watches_or_not(streams: bool) -> None:
    backend, _ = make_backend(ThinkingRenderer())
    *increments, answer = events_of(backend, "<think>let me see</think> yes", streams)
    assert isinstance(answer, Answer)
    assert (answer.text, answer.thinking, answer.thinking_tokens) == ("yes", "let me see", 10)
    assert answer.answer_started and answer.first_token and answer.answer_started >= answer.first_token
    assert bool(increments) is streams
    told = [(event.thinking, event.text) for event in increments if isinstance(event, Increment)]
    if streams:
        assert tuple(map("".join, zip(*told, strict=True))) == ("let me see", "yes")


@pytest.mark.parametrize("streams", [True, False])
def test_white_space_before_a_message_of_its_own_is_no_part_of_it(streams: bool) -> None:
    class Chat(TextRenderer):
        def answers_apart(self, entry: ModelEntry) -> bool:
            return True

    backend, _ = make_backend(Chat())
    *increments, answer = events_of(backend, "<  x", streams)
    assert isinstance(answer, Answer) and answer.text == "<  x"
    *increments, answer = events_of(backend, " ", streams)
    assert isinstance(answer, Answer) and answer.text == "[ ]"
    *increments, answer = events_of(backend, "~ \n hi  there", streams)
    assert isinstance(answer, Answer) and answer.text == "hi  there"
    told = "".join(event.text for event in increments if isinstance(event, Increment))
    assert told == ("hi  there" if streams else "")


def test_an_answer_without_thinking_is_whole() -> None:
    backend, _ = make_backend(ThinkingRenderer())
    *_, answer = events_of(backend, "x")
    assert isinstance(answer, Answer)
    assert (answer.text, answer.thinking, answer.thinking_tokens, answer.answer_started) == ("[x]", "", None, None)


def test_a_completion_that_never_stops_thinking_has_an_empty_answer() -> None:
    backend, _ = make_backend(ThinkingRenderer())
    *_, answer = events_of(backend, "<think>on and on")
    assert isinstance(answer, Answer) and (answer.text, answer.thinking) == ("", "on and on")


@pytest.fixture
def executor(ledger: Ledger, settings: Settings) -> tuple[ChunkExecutor, EchoEngine]:
    backend, engine = make_backend(TextRenderer())
    dispatcher = Dispatcher(cast(Celery, InProcess()), ledger, settings)
    made = ChunkExecutor(
        entry=ENTRY,
        backend=backend,
        ledger=ledger,
        dispatcher=dispatcher,
        live=Live(settings.redis_url),
        settings=settings,
        worker="w",
    )
    return made, engine


def run_all(
    ledger: Ledger,
    executor: ChunkExecutor,
    prompts: list[NewPrompt],
    samples: int = 1,
    kind: RunKind = RunKind.BULK,
) -> Run:
    new = NewRun(kind, "o", {"a": 8}, {}, samples=samples, entries={"a": ENTRY})
    run, _ = ledger.runs.submit(new, prompts)
    work_off(ledger, executor)
    return ledger.runs.get(run.id)


def work_off(ledger: Ledger, executor: ChunkExecutor) -> None:
    for item in ledger.outbox.dispatch("a", {RunKind.ARENA: 99, RunKind.BULK: 99}):
        executor.generate(item.chunk)


def test_a_turn_gets_the_answer_before_it_sample_by_sample(
    ledger: Ledger, executor: tuple[ChunkExecutor, EchoEngine]
) -> None:
    prompts = [NewPrompt("one"), NewPrompt("two", follows=0), NewPrompt("three", follows=1), NewPrompt("apart")]
    run = run_all(ledger, executor[0], prompts, samples=2)
    assert run.finished and run.counts.done == 8
    assert sorted(executor[1].seen) == sorted(["one", "one\n[one]\ntwo", "one\n[one]\ntwo\n[two]\nthree", "apart"] * 2)
    assert len(executor[1].seeds) == 8
    assert executor[1].seeds == {row.seed for row in ledger.completions.page(run.id)}
    shown = ledger.completions.rendering(run.id, "a", 2, 1)
    assert shown and shown.text == "one\n[one]\ntwo\n[two]\nthree"
    assert ledger.completions.rendering(run.id, "a", 0, 1) == Rendered("one", ())


def test_a_later_turn_waits_since_it_was_added_not_since_its_run_was(
    ledger: Ledger, executor: tuple[ChunkExecutor, EchoEngine]
) -> None:
    run = run_all(ledger, executor[0], [NewPrompt("one")])
    idx = ledger.growth.follow(run.id, NewPrompt("two", follows=0))
    for item in ledger.outbox.dispatch("a", {RunKind.ARENA: 9, RunKind.BULK: 9}):
        executor[0].generate(item.chunk)
    first, second = ledger.completions.page(run.id)
    assert first.created == run.created and second.idx == idx
    assert second.created and second.created >= (ledger.runs.prompts(run.id)[1].created or 0.0) > run.created
    assert second.created > (first.written or 0.0) - 1e-3


def test_what_follows_a_failed_turn_fails_with_its_reason_and_neighbours_do_not(
    ledger: Ledger, executor: tuple[ChunkExecutor, EchoEngine]
) -> None:
    prompts = [NewPrompt("!one"), NewPrompt("two", follows=0), NewPrompt("three", follows=1), NewPrompt("apart")]
    run = run_all(ledger, executor[0], prompts)
    assert run.finished and (run.counts.done, run.counts.failed) == (1, 3)
    errors = [row.error for row in ledger.completions.page(run.id)]
    assert errors == ["it fails", *["The turn before this one has no answer: it fails"] * 2, None]
    assert executor[1].seen.count("apart") == 1 and len(executor[1].seen) == 2


def test_a_worker_takes_no_run_that_was_made_with_another_model(
    ledger: Ledger, executor: tuple[ChunkExecutor, EchoEngine]
) -> None:
    other = LocalModel(name="a", source="elsewhere")
    run, _ = ledger.runs.submit(NewRun(RunKind.BULK, "o", {"a": 8}, {}, entries={"a": other}), [NewPrompt("x")])
    (item,) = ledger.outbox.dispatch("a", {RunKind.ARENA: 0, RunKind.BULK: 1})
    executor[0].generate(item.chunk)
    assert ledger.runs.get(run.id).counts.pending == 1 and not executor[1].seen


def test_what_no_database_stores_is_left_out_of_the_turns_that_follow_too(
    ledger: Ledger, executor: tuple[ChunkExecutor, EchoEngine]
) -> None:
    run = run_all(ledger, executor[0], [NewPrompt("0"), NewPrompt("two", follows=0)])
    first, second = ledger.completions.page(run.id)
    assert (first.text, first.characters, second.text) == ("[0]", 3, "[two]")
    shown = ledger.completions.rendering(run.id, "a", 1)
    assert shown and shown.text == executor[1].seen[1] == "0\n[0]\ntwo"


def test_results_that_wait_for_a_ledger_that_is_away_do_not_ask_it_without_a_pause(
    ledger: Ledger, executor: tuple[ChunkExecutor, EchoEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, asked = ledger.chunks.write, []

    def away(*arguments: Any, **options: Any) -> bool:
        asked.append(time.monotonic())
        if asked[-1] - asked[0] < 0.6:
            raise Unavailable("away")
        return write(*arguments, **options)

    monkeypatch.setattr(ledger.chunks, "write", away)
    assert run_all(ledger, executor[0], [NewPrompt("one")]).counts.done == 1
    assert len(asked) < 6


def test_text_of_another_try_never_goes_on_from_the_one_before(
    ledger: Ledger, executor: tuple[ChunkExecutor, EchoEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[LiveEvent] = []
    monkeypatch.setattr(executor[0].live, "publish", lambda run, events: told.extend(events))
    run = run_all(ledger, executor[0], [NewPrompt("!one")], kind=RunKind.ARENA)
    before = {event.attempt for event in told}
    told.clear()
    assert ledger.control.retry(run.id) == 1  # attempts are counted anew
    work_off(ledger, executor[0])
    assert before and min(event.attempt for event in told) > max(before)


def test_an_error_with_what_no_database_stores_fails_its_prompt_at_once(
    each_ledger: Ledger, settings: Settings
) -> None:
    backend, engine = make_backend(TextRenderer())
    dispatcher = Dispatcher(cast(Celery, InProcess()), each_ledger, settings)
    made = ChunkExecutor(
        entry=ENTRY,
        backend=backend,
        ledger=each_ledger,
        dispatcher=dispatcher,
        live=Live(settings.redis_url),
        settings=settings,
        worker="w",
    )
    run = run_all(each_ledger, made, [NewPrompt("1"), NewPrompt("fine")])
    assert (run.counts.done, run.counts.failed) == (1, 1) and sorted(engine.seen) == ["1", "fine"]
    assert each_ledger.completions.page(run.id)[0].error == "it\ufffd fails\ufffd"
