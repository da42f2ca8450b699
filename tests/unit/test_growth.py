"""Models and samples join a run in any state, and nothing of it that is there changes (I15)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.exc import OperationalError

from tasks.conversation import NewPrompt
from tasks.errors import Conflict, InvalidInput, NotFound
from tasks.ledger import Ledger, planning
from tasks.ledger.growth import NewColumn
from tasks.ledger.planning import continuing, parts
from tasks.ledger.records import NewRun, Worker
from tasks.ledger.tables import chunk
from tasks.run_schema import ARENA_PROMPTS, MAX_SAMPLES
from tasks.states import FinishReason, RunKind, RunState, WorkerState
from tests.clock import pass_time
from tests.unit.growth_rows import ALL, answer, claims, covered, entry, rows, submit, work_off

TALK = [NewPrompt("one"), NewPrompt("two", follows=0), NewPrompt("three"), NewPrompt("four", follows=2)]


def add(ledger: Ledger, run_id: str, *names: str, size: int = 2) -> None:
    ledger.growth.add_models(run_id, {name: NewColumn(entry(), size) for name in names})


def every(prompts: int, *samples: int) -> list[tuple[int, int]]:
    return [(idx, sample) for idx in range(prompts) for sample in samples]


def test_a_third_model_joins_a_finished_run_and_only_its_column_is_computed(each_ledger: Ledger) -> None:
    run = submit(each_ledger, 5)
    ended = work_off(each_ledger, run.id)
    before = rows(each_ledger, run.id)
    assert ended.state is RunState.DONE
    add(each_ledger, run.id, "c")
    grown = each_ledger.runs.get(run.id)
    assert (grown.state, grown.finished, list(grown.models)) == (RunState.RUNNING, None, ["a", "b", "c"])
    assert (grown.models["c"].pending, grown.counts.pending, grown.counts.total) == (5, 5, 15)
    assert grown.entries["c"].identity == entry().identity
    assert not list(claims(each_ledger, "a"))
    after = work_off(each_ledger, run.id)
    assert (after.state, after.counts.done) == (RunState.DONE, 15)
    assert all(old <= rows(each_ledger, run.id)[table] for table, old in before.items())
    assert covered(each_ledger, run.id, "c") == every(5, 0)


@pytest.mark.parametrize("state", [RunState.PENDING, RunState.RUNNING, RunState.PAUSED])
def test_what_is_added_leaves_the_state_of_an_open_run(each_ledger: Ledger, state: RunState) -> None:
    run = submit(each_ledger)
    if state is RunState.RUNNING:
        assert next(claims(each_ledger, "a"))
    if state is RunState.PAUSED:
        each_ledger.control.pause(run.id)
    add(each_ledger, run.id, "c")
    each_ledger.growth.add_samples(run.id, 1, {})
    grown = each_ledger.runs.get(run.id)
    assert (grown.state, grown.counts.pending, grown.counts.total) == (state, 24, 24)
    assert bool(list(claims(each_ledger, "c"))) == (state is not RunState.PAUSED)


def test_a_cancelled_run_goes_on_with_what_is_added_once_it_has_ended(each_ledger: Ledger) -> None:
    each_ledger.workers.register(Worker("w", "a", WorkerState.READY, "host", 1, "cpu", "", "float32", 8))
    run = submit(each_ledger)
    held = next(claims(each_ledger, "a"))
    each_ledger.control.cancel(run.id)
    with pytest.raises(Conflict, match="few seconds"):
        add(each_ledger, run.id, "c")
    with pytest.raises(Conflict, match="few seconds"):
        each_ledger.growth.add_samples(run.id, 1, {})
    with pytest.raises(Conflict, match="few seconds"):
        each_ledger.growth.add_prompts(run.id, [NewPrompt("more")], {})
    answer(each_ledger, held)
    assert each_ledger.runs.get(run.id).finished is not None
    before = rows(each_ledger, run.id)
    add(each_ledger, run.id, "c")
    ended = work_off(each_ledger, run.id)
    assert (ended.state, ended.counts.cancelled, ended.models["c"].done) == (RunState.DONE, 6, 4)
    assert all(old <= rows(each_ledger, run.id)[table] for table, old in before.items())


def test_a_column_that_is_there_is_not_added_again(each_ledger: Ledger) -> None:
    run = submit(each_ledger)
    before = each_ledger.runs.get(run.id)
    with pytest.raises(Conflict, match="'b'"):
        add(each_ledger, run.id, "c", "b")
    with pytest.raises(NotFound):
        add(each_ledger, "none", "c")
    assert each_ledger.runs.get(run.id) == before


def test_turns_of_a_conversation_lie_in_one_chunk_of_a_model_that_is_added(each_ledger: Ledger) -> None:
    run = submit(each_ledger, TALK, models="a")
    assert each_ledger.growth.follow(run.id, NewPrompt("five", follows=1)) == 4
    assert each_ledger.growth.follow(run.id, NewPrompt("six", follows=4)) == 5
    add(each_ledger, run.id, "c", size=1)
    with each_ledger.database.read() as connection:
        query = select(chunk.c.first, chunk.c.count).where(chunk.c.model == "c").order_by(chunk.c.first)
        assert [tuple(row) for row in connection.execute(query)] == [(0, 2), (2, 2), (4, 2)]
    ended = work_off(each_ledger, run.id)
    assert ended.models["c"].done == ended.models["a"].done == 6


def test_later_turns_are_told_from_turns_that_follow_at_once() -> None:
    assert continuing([(1, 0), (3, 2), (4, 3), (5, 0), (6, 5), (7, 3)]) == [1, 3, 4, 6]
    assert list(parts(0, 8, 1, [1, 3, 4, 6])) == [(0, 2), (2, 3), (5, 2), (7, 1)]
    assert list(parts(0, 8, 3, [1, 3, 4, 6], full=True)) == [(0, 5), (5, 3)]


def test_samples_are_added_behind_those_that_are_there(each_ledger: Ledger) -> None:
    run = submit(each_ledger, TALK, samples=2)
    work_off(each_ledger, run.id)
    before = rows(each_ledger, run.id)
    each_ledger.growth.add_samples(run.id, 3, {"a": 1, "b": 9})
    grown = each_ledger.runs.get(run.id)
    assert (grown.samples, grown.state, grown.counts.pending) == (5, RunState.RUNNING, 24)
    asked = [key for claim in claims(each_ledger, "a") for key in claim.missing]
    assert sorted(asked) == every(4, 2, 3, 4)
    pass_the_lease(each_ledger)
    ended = work_off(each_ledger, run.id)
    assert (ended.state, ended.counts.done, ended.counts.total) == (RunState.DONE, 40, 40)
    assert all(old <= rows(each_ledger, run.id)[table] for table, old in before.items())
    assert covered(each_ledger, run.id, "b") == every(4, *range(5))


def pass_the_lease(ledger: Ledger) -> None:
    with ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE chunk SET lease_until = 1 WHERE state = 'leased'")
    ledger.sweeper.sweep(60)


def test_a_sample_of_a_later_turn_waits_for_the_same_sample_before_it(each_ledger: Ledger) -> None:
    run = submit(each_ledger, TALK[:1], models="a")
    work_off(each_ledger, run.id)
    each_ledger.growth.follow(run.id, NewPrompt("later", follows=0))
    each_ledger.growth.add_samples(run.id, 1, {"a": 1})
    first, later = [], []
    for claim in claims(each_ledger, "a"):
        (first if claim.prompts[min(idx for idx, _ in claim.missing)].follows is None else later).append(claim)
    assert [claim.missing for claim in first] == [((0, 1), (1, 1))]  # the later turn lies behind its first one
    assert [claim.missing for claim in later] == [((1, 0),)]
    assert (0, 0) in later[0].answers
    for claim in (*first, *later):
        answer(each_ledger, claim)
    assert each_ledger.runs.get(run.id).counts.done == 4


@pytest.mark.parametrize("number", [-1, 0, MAX_SAMPLES - 1])
def test_samples_have_a_limit(each_ledger: Ledger, number: int) -> None:
    run = submit(each_ledger, samples=2)
    with pytest.raises(InvalidInput, match="2 samples"):
        each_ledger.growth.add_samples(run.id, number, {})
    assert each_ledger.runs.get(run.id) == run
    each_ledger.growth.add_samples(run.id, MAX_SAMPLES - 2, {})
    assert each_ledger.runs.get(run.id).samples == MAX_SAMPLES


def test_what_failed_is_retried_while_samples_of_the_same_prompt_are_still_to_come(each_ledger: Ledger) -> None:
    run = submit(each_ledger, 3, models="a", size=3)
    work_off(each_ledger, run.id, FinishReason.ERROR)
    each_ledger.growth.add_samples(run.id, 1, {"a": 3})
    held = next(claims(each_ledger, "a"))
    assert each_ledger.control.retry(run.id) == 3
    again = list(claims(each_ledger, "a"))
    assert sorted(key for claim in (held, *again) for key in claim.missing) == every(3, 0, 1)
    for claim in (held, *again):
        answer(each_ledger, claim)
    assert each_ledger.runs.get(run.id).counts.done == 6


def test_what_is_added_to_a_model_that_was_given_up_fails_alike_until_a_retry(each_ledger: Ledger) -> None:
    run = submit(each_ledger, 2, models="a")
    each_ledger.control.give_up(run.id, "a", "nobody serves it")
    each_ledger.growth.add_samples(run.id, 1, {})
    assert not list(claims(each_ledger, "a"))
    each_ledger.sweeper.sweep(60)
    ended = each_ledger.runs.get(run.id)
    assert ended.finished and ended.counts.failed == 4
    assert each_ledger.control.retry(run.id) == 4
    assert work_off(each_ledger, run.id).counts.done == 4


def test_one_of_two_who_add_the_same_model_at_once_is_told(each_ledger: Ledger) -> None:
    run = submit(each_ledger, 30)
    together, told = threading.Barrier(4, timeout=20), []

    def add_at_once() -> None:
        together.wait()
        try:
            add(each_ledger, run.id, "c")
        except Conflict as error:
            told.append(error)

    threads = [threading.Thread(target=add_at_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 3
    assert covered(each_ledger, run.id, "c") == every(30, 0)
    assert each_ledger.runs.get(run.id).counts.total == 90


@pytest.fixture
def losing_an_answer(each_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The answer to the next commit gets lost."""
    transaction, commits = each_ledger.database._transaction, iter([True])

    @contextmanager
    def losing(durable: bool) -> Iterator[Connection]:
        with transaction(durable) as connection:
            yield connection
        if durable and next(commits, False):
            raise OperationalError("COMMIT", {}, OSError(), connection_invalidated=True)

    with monkeypatch.context() as patch:
        patch.setattr(each_ledger.database, "_transaction", losing)
        yield


def test_what_is_added_by_a_commit_without_an_answer_is_added_once(
    each_ledger: Ledger, request: pytest.FixtureRequest
) -> None:
    run = submit(each_ledger)
    request.getfixturevalue("losing_an_answer")
    add(each_ledger, run.id, "c")
    assert each_ledger.runs.get(run.id).counts.total == 12
    assert covered(each_ledger, run.id, "c") == every(4, 0)


def test_samples_of_a_commit_without_an_answer_are_added_once(
    each_ledger: Ledger, request: pytest.FixtureRequest
) -> None:
    run = submit(each_ledger)
    request.getfixturevalue("losing_an_answer")
    each_ledger.growth.add_samples(run.id, 2, {})
    assert each_ledger.runs.get(run.id).samples == 3
    assert covered(each_ledger, run.id, "a") == every(4, 0, 1, 2)


def test_the_time_to_an_answer_begins_when_it_was_asked_for(each_ledger: Ledger) -> None:
    run = submit(each_ledger, 2, models="a")
    first = next(claims(each_ledger, "a"))
    assert first.created == run.created
    answer(each_ledger, first, FinishReason.ERROR)
    for ask in (
        lambda: add(each_ledger, run.id, "c"),
        lambda: each_ledger.growth.add_samples(run.id, 1, {}),
        lambda: each_ledger.growth.add_prompts(run.id, [NewPrompt("more")], {}),
        lambda: each_ledger.growth.follow(run.id, NewPrompt("then?", follows=0)),
        lambda: each_ledger.control.retry(run.id),
    ):
        asked = each_ledger.clock()
        ask()
        found = [claim for model in "ac" for claim in claims(each_ledger, model)]
        assert found and all(claim.created >= asked - 0.01 for claim in found)
        for claim in found:
            answer(each_ledger, claim)


def test_a_chunk_that_is_split_keeps_the_time_at_which_it_was_asked_for(each_ledger: Ledger) -> None:
    run = submit(each_ledger, 2, models="a")
    work_off(each_ledger, run.id)
    add(each_ledger, run.id, "c")
    asked = next(claims(each_ledger, "c")).created
    for _ in range(2):
        pass_time(each_ledger, 100.0)
        each_ledger.sweeper.sweep(60)
        pass_time(each_ledger, 5.0)
        again = list(claims(each_ledger, "c"))
    assert len(again) == 2 and run.created < asked
    assert {claim.created for claim in again} == {asked}


def test_a_file_that_was_added_to_an_arena_run_is_done_again_in_the_lane_of_files(ledger: Ledger) -> None:
    new = NewRun(RunKind.ARENA, "owner", {"a": 1}, {"seed": 1})
    file = [NewPrompt(f"more {i}") for i in range(ARENA_PROMPTS + 1)]
    for first, added, lane in (([NewPrompt("one")], file, RunKind.BULK), (file, [NewPrompt("one")], RunKind.ARENA)):
        run = ledger.runs.submit(new, first)[0]
        ledger.growth.add_prompts(run.id, added, {})
        work_off(ledger, run.id, FinishReason.ERROR)
        assert ledger.control.retry(run.id) == ARENA_PROMPTS + 2
        assert {item.lane for item in ledger.outbox.dispatch("a", ALL)} == {lane}
        work_off(ledger, run.id)


def test_of_many_prompts_chunks_are_larger_so_that_others_do_not_wait_long(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "MAX_CHUNKS", 3)
    run = submit(ledger, 7, models="a", size=1)
    add(ledger, run.id, "c", size=1)
    ledger.growth.add_samples(run.id, 1, {"a": 1, "c": 1})
    ledger.growth.add_prompts(run.id, [NewPrompt(f"more {i}") for i in range(6)], {"a": 1, "c": 1})
    with ledger.database.read() as connection:
        found = connection.execute(select(chunk).where(chunk.c.model == "c").order_by(chunk.c.id)).all()
    assert [(one.first, one.count) for one in found] == [*[(0, 3), (3, 3), (6, 1)] * 2, (7, 2), (9, 2), (11, 2)]
    assert covered(ledger, run.id, "c") == every(13, 0, 1)
