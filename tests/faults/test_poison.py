"""What a prompt may do to its worker: cases 8 to 11. Neighbours must always finish."""

import threading

import pytest
from sqlalchemy import select

from tasks.ledger.tables import chunk
from tasks.states import ChunkState, FinishReason, RunKind
from tests.faults.deployment import Scene
from tests.faults.processes import until


def assert_only_the_poison_failed(scene: Scene, prompts: list[str], poison: str, seconds: float = 90) -> str:
    """Run ``prompts``, see all but ``poison`` done and that fail at its third attempt; returns its error text."""
    run = scene.submit(prompts)
    verdict = scene.drained(seconds)
    failed = [row for row in scene.rows(run) if row.finish_reason is FinishReason.ERROR]
    assert [prompts[row.idx] for row in failed] == [poison]
    assert failed[0].attempt == 3
    assert verdict.outcomes["done"] == len(prompts) - 1
    return failed[0].error or ""


@pytest.mark.parametrize("workers", [1, 2])
def test_case_08_a_prompt_that_ends_its_process(scene: Scene, workers: int) -> None:
    """Fault: a prompt that makes the process leave (a crash in native code). Injection: ``os._exit`` in the engine.
    Must hold: it fails visibly at attempt 3 (I5), all its neighbours finish, the worker is started again.
    """
    scene.supervised(workers)
    prompts = scene.prompts(60)
    prompts[13] = "!exit"
    error = assert_only_the_poison_failed(scene, prompts, "!exit")
    assert "3 times" in error
    assert scene.deaths == 3


@pytest.mark.parametrize("error", ["MemoryError", "SystemExit"])
def test_case_09_an_error_in_the_task(scene: Scene, error: str) -> None:
    """Fault: a task's thread raises what the thread pool does not survive. Injection: MemoryError, SystemExit. Must
    hold: the slot comes back, also after more such errors than there are threads; the neighbours finish.
    """
    scene.workers(1)
    poison = [f"!raise {error} {i}" for i in range(12)]
    runs = [scene.submit([text], kind=RunKind.ARENA) for text in poison]
    verdict = scene.drained()
    assert all(row.finish_reason is FinishReason.ERROR for run in runs for row in scene.rows(run))
    assert verdict.outcomes["failed"] == len(poison)
    scene.submit(30)
    assert scene.drained(20).outcomes["done"] == 30
    assert scene.ready() == 1


def test_case_10_an_engine_that_stands_still(scene: Scene) -> None:
    """Fault: the engine deadlocks. Injection: a prompt that waits for ever in a step. Must hold: the lease is lost
    (I12), the worker ends itself after its watchdog's time (100 s by default, 8 s here) with a clear line, and is
    started again; the prompt fails at attempt 3, its neighbours finish.
    """
    scene.supervised(1)
    prompts = scene.prompts(12)
    prompts[5] = "!hang"
    thread = threading.Thread(target=note_lost_lease, args=[scene, 5, lost := []])
    thread.start()
    assert_only_the_poison_failed(scene, prompts, "!hang", 120)
    thread.join()
    assert lost == [0], "its lease was lost before its process ended"
    assert scene.deaths >= 2


def note_lost_lease(scene: Scene, idx: int, lost: list[int]) -> None:
    """Notes how often the worker had died when the chunk with prompt ``idx`` was held, then held no more."""
    has_it = (chunk.c.first <= idx) & (chunk.c.first + chunk.c.count > idx)
    query = select(chunk.c.id).where(has_it, chunk.c.state == ChunkState.LEASED)

    def held() -> bool:
        with scene.ledger.database.read() as connection:
            return connection.execute(query).first() is not None

    until(held, 20, "the chunk is held")
    until(lambda: not held(), 20, "it is held no more")
    lost.append(scene.deaths)


def test_case_11_out_of_memory(scene: Scene) -> None:
    """Fault: the device has no memory for a prompt. Injection: MemoryError in a step (a batch that shrinks is the
    engine's own test). Must hold: neighbours finish, the prompt ends with an error that names the cause.
    """
    worker = scene.workers(1)[0]
    prompts = scene.prompts(40)
    prompts[7] = "!memory"
    error = assert_only_the_poison_failed(scene, prompts, "!memory")
    assert "MemoryError" in error
    assert worker.popen.poll() is None
    until(lambda: scene.ready() == 1, 5, "the worker lives")
