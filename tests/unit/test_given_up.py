"""Models that get nothing done: the reason is shown, and a run need not wait for them."""

import pytest

from tasks.conversation import NewPrompt
from tasks.errors import NotFound
from tasks.ledger import Ledger
from tasks.ledger.records import Worker
from tasks.states import WaitReason, WorkerState
from tests.unit.conversations_asked import MADE_WITH, TURNS, claim, submit


def test_giving_a_model_up_ends_the_run_with_the_reason_and_retry_takes_it_back(each_ledger: Ledger) -> None:
    run = submit(each_ledger, TURNS)
    held = claim(each_ledger)
    assert held  # by a worker that nobody has heard of
    each_ledger.control.give_up(run.id, "a", "its file is gone")
    ended = each_ledger.runs.get(run.id)
    assert ended.finished and ended.counts.failed == 3
    assert {row.error for row in each_ledger.completions.page(run.id)} == {"its file is gone"}
    assert not each_ledger.chunks.write(held, [], MADE_WITH)
    assert each_ledger.control.retry(run.id) == 3
    assert claim(each_ledger)
    with pytest.raises(NotFound):
        each_ledger.control.give_up(run.id, "b", "x")


def test_what_is_given_up_of_a_large_run_is_closed_by_the_sweep(each_ledger: Ledger) -> None:
    run = submit(each_ledger, [NewPrompt("p") for _ in range(600)], size=1)
    each_ledger.control.give_up(run.id, "a", "no")
    assert each_ledger.runs.get(run.id).counts.failed == 500
    assert claim(each_ledger) is None
    each_ledger.sweeper.sweep(message_lost_after=-1)
    ended = each_ledger.runs.get(run.id)
    assert ended.counts.failed == 600 and ended.finished


def test_every_wait_has_its_reason(each_ledger: Ledger) -> None:
    run = submit(each_ledger, TURNS)

    def reason(registered: tuple[str, ...] = ("a",)) -> WaitReason:
        return each_ledger.waits.of_run(each_ledger.runs.get(run.id), registered)["a"].reason

    assert reason() is WaitReason.NO_WORKER
    assert reason(()) is WaitReason.REMOVED
    each_ledger.workers.register(Worker("w", "a", WorkerState.LOADING, "h", 1, "cpu", "", "", 1))
    each_ledger.workers.beat("w", stage="reading", stage_share=0.5)
    wait = each_ledger.waits.of_run(run, ["a"])["a"]
    assert (wait.reason, wait.stage, wait.share) == (WaitReason.LOADING, "reading", 0.5)
    each_ledger.workers.beat("w", state=WorkerState.FAILED, error="a: no such folder")
    wait = each_ledger.waits.of_run(run, ["a"])["a"]
    assert (wait.reason, wait.detail) == (WaitReason.FAILED, "a: no such folder") and wait.reason.is_blocked
    each_ledger.workers.beat("w", state=WorkerState.READY)
    assert reason() is WaitReason.BUSY
    with each_ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE worker SET heartbeat = heartbeat - 1000")
    assert reason() is WaitReason.LOST
    assert each_ledger.workers.all()[0].state is WorkerState.LOST
    each_ledger.control.pause(run.id)
    assert reason() is WaitReason.PAUSED
    each_ledger.control.cancel(run.id)
    assert each_ledger.waits.of_run(each_ledger.runs.get(run.id), ["a"]) == {}
