"""The ledger's promises: one terminal row each, fenced writes, counts that add up, runs that end."""

import dataclasses

import pytest
from sqlalchemy import text

from tasks.conversation import NewPrompt
from tasks.errors import Conflict, InvalidInput, NotFound
from tasks.ledger import Lease, Ledger
from tasks.ledger.chunks import MAX_ATTEMPTS
from tasks.ledger.records import Claim, Completion, Environment, NewRun, Run, Worker
from tasks.ledger.sweeper import Fate, fate_of
from tasks.states import FinishReason, RunKind, RunState, WorkerState

MADE_WITH = Environment("e1", {"torch": "2"})
BOTH = {RunKind.ARENA: 100, RunKind.BULK: 100}


def submit(ledger: Ledger, prompts: int = 4, size: int = 2, samples: int = 1, **changes: object) -> Run:
    new = NewRun(RunKind.BULK, "owner", {"a": size, "b": size}, {"temperature": 0.5}, samples)
    run, _ = ledger.runs.submit(dataclasses.replace(new, **changes), [NewPrompt(f"prompt {i}") for i in range(prompts)])
    return run


def completion(claim: Claim, idx: int, sample: int, reason: FinishReason = FinishReason.STOP) -> Completion:
    return Completion(claim.run, claim.model, idx, sample, "text", reason, attempt=claim.attempt, characters=4)


def do(ledger: Ledger, claim: Claim, count: int | None = None) -> bool:
    rows = [completion(claim, idx, sample) for idx, sample in claim.missing[:count]]
    return ledger.chunks.write(claim, rows, MADE_WITH)


def register(ledger: Ledger, name: str = "w") -> None:
    ledger.workers.register(Worker(name, "a", WorkerState.READY, "host", 1, "cpu", "", "float32", 8))


def take(ledger: Ledger, model: str) -> list[Claim]:
    claims = [ledger.chunks.claim(item.chunk, "w") for item in ledger.outbox.dispatch(model, BOTH)]
    return [claim for claim in claims if claim]


def expire(ledger: Ledger) -> None:
    with ledger.database.write() as connection:
        connection.execute(text("UPDATE chunk SET lease_until = 1 WHERE state = 'leased'"))


def test_a_run_goes_from_pending_over_running_to_done(each_ledger: Ledger) -> None:
    ledger = each_ledger
    run = submit(ledger, samples=2)
    assert (run.state, run.counts.total, run.counts.pending) == (RunState.PENDING, 16, 16)
    for model in ("a", "b"):
        for claim in take(ledger, model):
            assert do(ledger, claim)
            assert ledger.runs.get(run.id).state is RunState.RUNNING
            assert claim.created == run.created <= claim.enqueued <= claim.claimed
            assert ledger.chunks.finish(claim)
    run = ledger.runs.get(run.id)
    assert (run.state, run.counts.done, run.counts.pending) == (RunState.DONE, 16, 0)
    assert run.finished is not None
    keys = [(c.model, c.idx, c.sample) for c in ledger.completions.page(run.id)]
    assert sorted(keys) == [(m, i, s) for m in "ab" for i in range(4) for s in range(2)]


def test_a_stale_token_writes_nothing(each_ledger: Ledger) -> None:
    ledger = each_ledger
    run = submit(ledger, prompts=2)
    old = take(ledger, "a")[0]
    expire(ledger)
    assert ledger.sweeper.sweep(10).requeued == 1
    assert ledger.chunks.renew(old) is Lease.LOST
    assert not do(ledger, old)
    assert not ledger.chunks.finish(old)
    assert ledger.completions.page(run.id) == []


def test_who_was_overtaken_changes_nothing_of_the_new_lease(each_ledger: Ledger) -> None:
    ledger = each_ledger
    run = submit(ledger, prompts=2)
    old = take(ledger, "a")[0]
    expire(ledger)
    ledger.sweeper.sweep(10)
    with ledger.database.write() as connection:
        connection.execute(text("UPDATE chunk SET not_before = 0"))
    new = take(ledger, "a")[0]
    assert new.chunk == old.chunk and new.token != old.token

    def row() -> object:
        with ledger.database.read() as connection:
            return connection.execute(text("SELECT * FROM chunk WHERE id = :id"), {"id": new.chunk}).one()

    before = row()
    assert not ledger.chunks.finish(old)
    assert not do(ledger, old)
    assert ledger.chunks.renew(old) is ledger.chunks.look(old) is Lease.LOST
    ledger.chunks.fail(old)
    ledger.chunks.release([old])
    assert row() == before
    assert ledger.completions.page(run.id) == []
    assert do(ledger, new) and ledger.chunks.finish(new)


def test_a_renewed_lease_holds_for_its_whole_time_again(each_ledger: Ledger) -> None:
    ledger = each_ledger
    submit(ledger, prompts=2)
    held = take(ledger, "a")[0]
    expire(ledger)
    assert ledger.chunks.renew(held) is Lease.HELD
    assert ledger.sweeper.sweep(10).requeued == 0
    with ledger.database.read() as connection:
        until = connection.execute(text("SELECT max(lease_until) FROM chunk")).scalar_one()
    assert held.claimed + ledger.chunks.lease <= until <= ledger.clock() + ledger.chunks.lease


def test_what_was_written_before_a_crash_is_not_done_again(each_ledger: Ledger) -> None:
    ledger = each_ledger
    run = submit(ledger, prompts=2)
    first = take(ledger, "a")[0]
    do(ledger, first, count=1)
    expire(ledger)
    ledger.sweeper.sweep(10)
    assert take(ledger, "a") == []  # not at once
    with ledger.database.write() as connection:
        connection.execute(text("UPDATE chunk SET not_before = 0"))
    second = take(ledger, "a")[0]
    assert (second.attempt, second.missing) == (2, first.missing[1:])
    do(ledger, dataclasses.replace(second, missing=first.missing))
    assert ledger.runs.get(run.id).models["a"].done == 2


def test_a_chunk_is_claimed_once(each_ledger: Ledger) -> None:
    ledger = each_ledger
    submit(ledger, prompts=1)
    item = ledger.outbox.dispatch("a", BOTH)[0]
    assert ledger.chunks.claim(item.chunk, "one")
    assert ledger.chunks.claim(item.chunk, "two") is None


def test_a_poisoned_prompt_fails_alone_at_the_third_attempt(each_ledger: Ledger) -> None:
    ledger = each_ledger
    run = submit(ledger, prompts=3, size=3)
    for _ in range(2 * MAX_ATTEMPTS):
        with ledger.database.write() as connection:
            connection.execute(text("UPDATE chunk SET not_before = 0"))
        for claim in take(ledger, "a"):
            if 1 not in claim.prompts:
                do(ledger, claim)
                ledger.chunks.finish(claim)
        expire(ledger)
        ledger.sweeper.sweep(10)
    rows = {c.idx: c for c in ledger.completions.page(run.id, "a")}
    assert {idx: row.finish_reason for idx, row in rows.items()} == {0: "stop", 1: "error", 2: "stop"}
    assert rows[1].attempt == MAX_ATTEMPTS and "3 times" in (rows[1].error or "")


def test_a_chunk_that_failed_twice_is_split_into_what_is_missing(each_ledger: Ledger) -> None:
    ledger = each_ledger
    run = submit(ledger, prompts=3, size=3)
    for written in (1, 0):
        with ledger.database.write() as connection:
            connection.execute(text("UPDATE chunk SET not_before = 0"))
        do(ledger, take(ledger, "a")[0], count=written)
        expire(ledger)
        swept = ledger.sweeper.sweep(10)
    assert (swept.split, swept.requeued) == (1, 0)
    singles = take(ledger, "a")
    assert [(claim.attempt, claim.missing) for claim in singles] == [(3, ((1, 0),)), (3, ((2, 0),))]
    assert ledger.runs.get(run.id).models["a"].pending == 2


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_what_a_cancelled_run_held_is_cancelled_however_often_it_failed(attempt: int) -> None:
    assert fate_of(attempt, 2, 1, RunState.CANCELLED) is Fate.CANCELLED
    assert fate_of(attempt, 2, 0, RunState.CANCELLED) is Fate.COMPLETE


def test_nobody_claims_what_was_tried_three_times(each_ledger: Ledger) -> None:
    ledger = each_ledger
    submit(ledger, prompts=1)
    item = ledger.outbox.dispatch("a", BOTH)[0]
    with ledger.database.write() as connection:
        connection.execute(text(f"UPDATE chunk SET attempt = {MAX_ATTEMPTS}"))
    assert ledger.chunks.claim(item.chunk, "w") is None


def test_cancel_keeps_partial_text_and_ends_the_rest(each_ledger: Ledger) -> None:
    ledger = each_ledger
    register(ledger)
    run = submit(ledger)
    held = take(ledger, "a")[0]
    do(ledger, held, count=1)
    ledger.control.cancel(run.id)
    run = ledger.runs.get(run.id)
    assert (run.state, run.counts.cancelled, run.counts.pending) == (RunState.CANCELLED, 6 - 2, 3)
    assert ledger.chunks.look(held) is Lease.CANCELLED
    partial = completion(held, *held.missing[1], FinishReason.CANCELLED)
    assert ledger.chunks.write(held, [partial], MADE_WITH)
    expire(ledger)
    ledger.sweeper.sweep(10)
    run = ledger.runs.get(run.id)
    assert (run.state, run.counts.pending, run.counts.done) == (RunState.CANCELLED, 0, 1)
    assert ledger.completions.page(run.id, "a")[1].text == "text"
    assert ledger.outbox.dispatch("b", BOTH) == []


def chunk_states(ledger: Ledger, model: str) -> list[str]:
    with ledger.database.read() as connection:
        return list(connection.execute(text("SELECT state FROM chunk WHERE model = :m"), {"m": model}).scalars())


def test_a_chunk_that_lacks_only_its_end_is_done_at_expiry(each_ledger: Ledger) -> None:
    ledger = each_ledger
    submit(ledger, prompts=2)
    assert do(ledger, take(ledger, "a")[0])
    expire(ledger)
    swept = ledger.sweeper.sweep(10)
    assert (swept.closed, swept.requeued, chunk_states(ledger, "a")) == (1, 0, ["done"])


@pytest.mark.parametrize("lives", [True, False])
def test_what_is_held_at_a_cancel_ends_cancelled(each_ledger: Ledger, lives: bool) -> None:
    ledger = each_ledger
    if lives:
        register(ledger)
    run = submit(ledger, prompts=2)
    held = take(ledger, "a")[0]
    ledger.control.cancel(run.id)
    assert chunk_states(ledger, "a") == (["leased"] if lives else ["cancelled"])
    if lives:
        with ledger.database.write() as connection:
            connection.execute(text("UPDATE chunk SET lease_until = lease_until - 20 WHERE state = 'leased'"))
        with ledger.database.read() as connection:
            until = connection.execute(text("SELECT max(lease_until) FROM chunk")).scalar_one()
        assert ledger.chunks.renew(held) is Lease.CANCELLED
        with ledger.database.read() as connection:
            assert connection.execute(text("SELECT max(lease_until) FROM chunk")).scalar_one() == until
        expire(ledger)
        ledger.sweeper.sweep(10)
    run = ledger.runs.get(run.id)
    assert (run.state, run.counts.cancelled, chunk_states(ledger, "a")) == (RunState.CANCELLED, 4, ["cancelled"])
    assert run.finished is not None


def test_cancelling_what_has_ended_changes_nothing(each_ledger: Ledger) -> None:
    ledger = each_ledger
    run = submit(ledger)
    for model in "ab":
        for claim in take(ledger, model):
            do(ledger, claim)
            ledger.chunks.finish(claim)
    ledger.control.cancel(run.id)
    assert ledger.runs.get(run.id).state is RunState.DONE


def test_arena_goes_before_bulk_and_runs_take_turns(each_ledger: Ledger) -> None:
    ledger = each_ledger
    bulk = [submit(ledger, prompts=3, size=1) for _ in range(2)]
    arena = submit(ledger, prompts=1, kind=RunKind.ARENA)
    with ledger.database.write() as connection:
        connection.execute(text("UPDATE run SET created = 1"))  # as if made within one tick of the clock
    items = ledger.outbox.dispatch("a", {RunKind.ARENA: 4, RunKind.BULK: 4})
    runs = [claim.run for item in items if (claim := ledger.chunks.claim(item.chunk, "w"))]
    assert runs == [arena.id, bulk[0].id, bulk[1].id, bulk[0].id, bulk[1].id]
    assert ledger.outbox.dispatch("a", {RunKind.ARENA: 4, RunKind.BULK: 4}) == []


def test_a_lost_message_is_sent_again(each_ledger: Ledger) -> None:
    ledger = each_ledger
    submit(ledger, prompts=1)
    first = ledger.outbox.dispatch("a", BOTH)
    assert ledger.outbox.dispatch("a", BOTH) == []
    assert ledger.sweeper.sweep(message_lost_after=-1).requeued == 1
    assert ledger.outbox.dispatch("a", BOTH) == first


def test_an_idempotency_key_makes_one_run(each_ledger: Ledger) -> None:
    ledger = each_ledger
    run = submit(ledger, idempotency_key="k")
    assert submit(ledger, idempotency_key="k").id == run.id
    assert submit(ledger, idempotency_key="k", owner="somebody else").id != run.id
    with pytest.raises(Conflict, match="Idempotency-Key"):
        submit(ledger, prompts=5, idempotency_key="k")
    assert ledger.runs.total() == 2


def test_released_work_counts_no_attempt(each_ledger: Ledger) -> None:
    ledger = each_ledger
    submit(ledger, prompts=1)
    ledger.chunks.release(take(ledger, "a"))
    assert take(ledger, "a")[0].attempt == 1


def test_a_failed_attempt_is_put_back_by_the_next_sweep(each_ledger: Ledger) -> None:
    submit(each_ledger, prompts=1)
    each_ledger.chunks.fail(take(each_ledger, "a")[0])
    assert each_ledger.sweeper.sweep(10).requeued == 1


def test_bad_submissions_leave_nothing(each_ledger: Ledger) -> None:
    ledger = each_ledger
    with pytest.raises(InvalidInput):
        submit(ledger, prompts=0)
    with pytest.raises(NotFound):
        ledger.runs.get("nothing")
    assert ledger.runs.total() == 0
