"""Conversations in the ledger: whole in one chunk, later turns after the one they follow, entries kept with runs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, false
from sqlalchemy.exc import OperationalError

from tasks.conversation import Message, NewPrompt, Role
from tasks.errors import Conflict, InvalidInput, NotFound
from tasks.ledger import Ledger, chunks, control, submission
from tasks.ledger.closing import lock_run
from tasks.ledger.records import Completion, NewRun, Rendered, Worker
from tasks.registry import LocalModel
from tasks.states import FinishReason, RunKind, WaitReason, WorkerState
from tests.clock import pass_time
from tests.unit.conversations_asked import ENTRY, MADE_WITH, TURNS, answer, claim, submit
from worker.backends.protocol import Answer
from worker.chunk_work import ChunkWork


def test_a_conversation_comes_back_as_it_was_handed_in(each_ledger: Ledger) -> None:
    history = (Message(Role.USER, "你好"), Message(Role.ASSISTANT, "您好"))
    full = NewPrompt(
        "再见",
        system="简短",
        history=history,
        category="c",
        reference="r",
        checks=({"type": "contains", "value": "见"},),
        tags=("t",),
        variables={"x": "y"},
        custom_id="id-1",
    )
    run = submit(each_ledger, [full])
    stored = each_ledger.runs.prompts(run.id)[0]
    assert stored.messages == full.messages == (Message(Role.SYSTEM, "简短"), *history, Message(Role.USER, "再见"))
    assert {name: getattr(stored, name) for name in full.__dataclass_fields__} == vars(full)


def test_a_run_keeps_the_entry_it_was_made_with_and_hands_it_to_the_worker(each_ledger: Ledger) -> None:
    run = submit(each_ledger, TURNS)
    assert run.entries == {"a": ENTRY}
    assert run.entries["a"].effective({"top_k": 3})["temperature"] == 0.5
    held = claim(each_ledger)
    assert held and held.entry == ENTRY


def test_a_worker_of_another_model_under_the_same_name_gets_nothing(each_ledger: Ledger) -> None:
    run = submit(each_ledger, TURNS)
    other = LocalModel(name="a", source="elsewhere")
    each_ledger.workers.register(Worker("w", "a", WorkerState.READY, "h", 1, "cpu", "", "", 1, identity=other.identity))
    assert claim(each_ledger, other.identity) is None
    assert each_ledger.waits.of_run(run, ["a"])["a"].reason is WaitReason.OTHER_ENTRY
    pass_time(each_ledger, 2.0)
    # Another template is no other model: it is the run's that is used.
    assert claim(each_ledger, LocalModel(name="a", source="m", template="plain").identity)


def test_a_run_that_no_worker_may_take_leaves_the_places_to_others(each_ledger: Ledger) -> None:
    old = submit(each_ledger, [NewPrompt("p") for _ in range(6)], size=1)
    entry = LocalModel(name="a", source="elsewhere")
    new = NewRun(RunKind.BULK, "o", {"a": 1}, {}, entries={"a": entry})
    run, _ = each_ledger.runs.submit(new, [NewPrompt("p")])
    capacity = {RunKind.ARENA: 0, RunKind.BULK: 4}
    identities = [entry.identity]
    (item,) = each_ledger.outbox.dispatch("a", capacity, identities)
    held = each_ledger.chunks.claim(item.chunk, "w", entry.identity)
    assert held and held.run == run.id
    # Where a worker of each is ready, a message may come to the wrong one: it is sent again soon, but not at once.
    identities.append(ENTRY.identity)
    for item in each_ledger.outbox.dispatch("a", capacity, identities):
        assert each_ledger.chunks.claim(item.chunk, "w", entry.identity) is None
    assert len(each_ledger.outbox.dispatch("a", capacity, identities)) == 3
    pass_time(each_ledger, 2.0)
    assert not each_ledger.outbox.dispatch("a", capacity, identities)  # every place is taken
    assert len(each_ledger.outbox.dispatch("a", {RunKind.ARENA: 0, RunKind.BULK: 9}, identities)) == 3
    each_ledger.control.give_up(old.id, "a", "no")
    assert each_ledger.runs.get(old.id).finished


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=12), size=st.integers(1, 7), piece=st.integers(1, 9))
def test_no_chunk_parts_a_conversation_and_all_prompts_are_in_one(
    ledger: Ledger, lengths: list[int], size: int, piece: int
) -> None:
    prompts: list[NewPrompt] = []
    for length in lengths:
        first = len(prompts)
        prompts += [NewPrompt("p", follows=None if not turn else first + turn - 1) for turn in range(length)]
    before = submission.PIECE
    submission.PIECE = piece
    try:
        run = submit(ledger, prompts, size)
    finally:
        submission.PIECE = before
    items = ledger.outbox.dispatch("a", {RunKind.ARENA: 0, RunKind.BULK: 10_000})
    claims = [held for item in items if (held := ledger.chunks.claim(item.chunk, "w"))]
    covered = sorted(idx for held in claims for idx, _ in held.missing)
    assert covered == list(range(len(prompts)))
    for held in claims:
        own = {idx for idx, _ in held.missing}
        assert all(prompts[idx].follows is None or prompts[idx].follows in own for idx in own)
        assert len(own) < size + max(lengths)
    ledger.control.delete(run.id)


def test_a_later_turn_waits_for_the_one_it_follows_and_brings_the_whole_conversation(each_ledger: Ledger) -> None:
    run = submit(each_ledger, [TURNS[0]], samples=2)
    first = claim(each_ledger)
    assert first
    idx = each_ledger.growth.follow(run.id, NewPrompt("and then?", follows=0))
    assert claim(each_ledger) is None  # its predecessor is not answered yet
    everything = {RunKind.ARENA: 9, RunKind.BULK: 9}
    assert not each_ledger.outbox.dispatch("a", everything)  # nor is it sent again at once
    pass_time(each_ledger, 2.0)
    assert claim(each_ledger) is None
    answer(each_ledger, first)
    assert each_ledger.runs.get(run.id).counts.pending == 2
    assert not each_ledger.outbox.dispatch("a", everything)
    pass_time(each_ledger, 2.0)
    second = claim(each_ledger)
    assert second and second.missing == ((idx, 0), (idx, 1))
    assert second.created >= (second.prompts[idx].created or 0.0) > run.created
    assert second.prompts[0].created is None
    said = ChunkWork(second).conversation((idx, 1))
    assert [message.content for message in said] == ["be brief", "one", "answer 0.1", "and then?"]
    answer(each_ledger, second)
    ended = each_ledger.runs.get(run.id)
    assert ended.finished and ended.counts.done == ended.counts.total == 4


def test_a_turn_whose_predecessor_is_put_back_while_it_is_claimed_waits_again(
    each_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submit(each_ledger, [TURNS[0]])
    first = claim(each_ledger)
    assert first
    idx = each_ledger.growth.follow(run.id, NewPrompt("and then?", follows=0))
    with monkeypatch.context() as patch:  # as it looks to a claim that a retry comes between
        patch.setattr(chunks, "waits_for_predecessor", false)
        assert claim(each_ledger) is None
    assert not each_ledger.outbox.dispatch("a", {RunKind.ARENA: 9, RunKind.BULK: 9})
    answer(each_ledger, first)
    pass_time(each_ledger, 2.0)
    second = claim(each_ledger)
    assert second and second.attempt == 1 and second.missing == ((idx, 0),)


def test_turns_of_a_cancelled_one_are_cancelled_and_not_started(ledger: Ledger) -> None:
    submit(ledger, TURNS)
    held = claim(ledger)
    assert held
    work = ChunkWork(held)
    assert work.ready(held.missing) == [(0, 0), (2, 0)] and work.open == 1
    assert work.settle((0, 0), Answer("g", "half", FinishReason.CANCELLED)) == [(1, 0)]
    ended = work.impossible((1, 0))
    assert ended and ended.finish_reason is FinishReason.CANCELLED and work.open == 0


def test_adding_a_turn_changes_no_row_that_is_there(each_ledger: Ledger) -> None:
    run = submit(each_ledger, TURNS)
    held = claim(each_ledger)
    assert held
    answer(each_ledger, held)
    before = (each_ledger.completions.page(run.id), each_ledger.runs.prompts(run.id))
    assert each_ledger.growth.follow(run.id, NewPrompt("more", follows=2)) == 3
    after = (each_ledger.completions.page(run.id), each_ledger.runs.prompts(run.id)[:3])
    assert after == before


def test_a_turn_that_is_added_while_its_run_ends_keeps_it_open(each_ledger: Ledger) -> None:
    run = submit(each_ledger, TURNS)
    held = claim(each_ledger)
    assert held
    rows = [Completion(held.run, "a", *key, "x", FinishReason.STOP) for key in held.missing]
    assert each_ledger.chunks.write(held, rows, MADE_WITH)
    ending = threading.Thread(target=each_ledger.chunks.finish, args=[held])
    with each_ledger.database.write() as connection:
        lock_run(connection, run.id)
        ending.start()
        time.sleep(0.5)  # by then it waits for this transaction
        connection.exec_driver_sql("UPDATE run_model SET total = total + 1")
        connection.exec_driver_sql("UPDATE run SET prompts = prompts + 1")
    ending.join()
    assert each_ledger.runs.get(run.id).counts.pending == 1
    assert each_ledger.runs.get(run.id).finished is None


def test_a_turn_whose_commit_got_no_answer_is_added_once(each_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    run = submit(each_ledger, TURNS)
    database = each_ledger.database
    transaction, commits = database._transaction, iter([True])

    @contextmanager
    def losing(durable: bool) -> Iterator[Connection]:
        with transaction(durable) as connection:
            yield connection
        if next(commits, False):
            raise OperationalError("COMMIT", {}, OSError(), connection_invalidated=True)

    monkeypatch.setattr(database, "_transaction", losing)
    assert each_ledger.growth.follow(run.id, NewPrompt("once", follows=0)) == 3
    assert each_ledger.runs.get(run.id).prompts == each_ledger.runs.get(run.id).counts.total == 4
    assert each_ledger.growth.follow(run.id, NewPrompt("once", follows=0)) == 4


@pytest.mark.parametrize("follows", [None, -1, 3])
def test_a_turn_that_follows_nothing_is_refused(ledger: Ledger, follows: int | None) -> None:
    run = submit(ledger, TURNS)
    with pytest.raises(InvalidInput, match="0 to 2"):
        ledger.growth.follow(run.id, NewPrompt("x", follows=follows))
    ledger.control.cancel(run.id)
    with pytest.raises(Conflict):
        ledger.growth.follow(run.id, NewPrompt("x", follows=0))
    with pytest.raises(NotFound):
        ledger.growth.follow("none", NewPrompt("x", follows=0))


def test_turns_that_failed_are_put_to_the_model_together_again(each_ledger: Ledger) -> None:
    run = submit(each_ledger, [NewPrompt("root"), *(NewPrompt("t", follows=i) for i in range(11))], size=1)
    held = claim(each_ledger)
    assert held and len(held.missing) == 12
    answer(each_ledger, held, reason=FinishReason.ERROR)
    assert each_ledger.control.retry(run.id) == 12
    again = claim(each_ledger)
    assert again and len(again.missing) == 12


def test_every_sample_that_failed_is_done_again_however_many_go_at_once(
    each_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submit(each_ledger, [NewPrompt("a"), NewPrompt("b"), NewPrompt("b2", follows=1)], samples=3)
    held = claim(each_ledger)
    assert held
    answer(each_ledger, held, reason=FinishReason.ERROR)
    monkeypatch.setattr(control, "RETRIED_AT_ONCE", 5)
    assert each_ledger.control.retry(run.id) == each_ledger.runs.get(run.id).counts.pending == 9
    for _ in range(3):
        for item in each_ledger.outbox.dispatch("a", {RunKind.ARENA: 0, RunKind.BULK: 9}):
            if held := each_ledger.chunks.claim(item.chunk, "w"):
                answer(each_ledger, held)
        pass_time(each_ledger, 2.0)
    assert each_ledger.runs.get(run.id).counts.done == 9


def test_a_chunk_that_fails_again_is_split_between_conversations_only(each_ledger: Ledger) -> None:
    submit(each_ledger, [NewPrompt("a"), NewPrompt("b"), NewPrompt("b2", follows=1), NewPrompt("c")])
    for _ in range(2):
        held = claim(each_ledger)
        assert held
        each_ledger.chunks.fail(held)
        each_ledger.sweeper.sweep(60)
        with each_ledger.database.write() as connection:
            connection.exec_driver_sql("UPDATE chunk SET not_before = 0")
    items = each_ledger.outbox.dispatch("a", {RunKind.ARENA: 0, RunKind.BULK: 9})
    claims = [each_ledger.chunks.claim(item.chunk, "w") for item in items]
    assert sorted([idx for idx, _ in held.missing] for held in claims if held) == [[0], [1, 2], [3]]


def test_prompts_as_the_model_saw_them_are_kept_once_and_go_with_their_run(each_ledger: Ledger) -> None:
    run = submit(each_ledger, [*TURNS, NewPrompt("more", follows=2)], samples=2)
    held = claim(each_ledger)
    assert held
    rendered = {(0, 0): Rendered("<s>one", (1, 2)), (1, 0): Rendered("two a", (3,)), (1, 1): Rendered("two b", (4,))}
    rendered[3, 0] = Rendered("more", (5,))
    rows = [Completion(held.run, "a", *key, "x", FinishReason.STOP) for key in held.missing]
    assert each_ledger.chunks.write(held, rows, MADE_WITH, True, rendered)
    shown = each_ledger.completions.rendering
    assert shown(run.id, "a", 0, 1) == rendered[0, 0]
    assert shown(run.id, "a", 1, 1) == rendered[1, 1]
    assert shown(run.id, "a", 2, 0) is None
    assert shown(run.id, "a", 3, 0) == rendered[3, 0]
    assert shown(run.id, "a", 3, 1) is None  # its turn before failed, so there is no prompt
    each_ledger.control.delete(run.id)
    assert shown(run.id, "a", 0, 0) is None
