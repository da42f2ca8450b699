"""Submits that are repeated and runs that are cancelled at the worst moment: cases 27 to 29."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tasks.states import Outcome, RunAction, RunKind, RunState
from tests.faults.deployment import LEASE, Scene
from tests.faults.processes import until

RACES = 1000


def test_case_27_submitted_twice(scene: Scene) -> None:
    """Fault: a client that repeats its request. Injection: eight submits with one idempotency key at the same moment,
    and one more. Must hold: one run; every answer is 202 with its id.
    """
    scene.workers(1)
    web = scene.web()
    prompts = scene.prompts(20)
    gate = threading.Barrier(8)

    def submit(_: int) -> tuple[int, str]:
        gate.wait()
        status, answer = scene.post(web, prompts, key="the same")
        return status, answer.get("id", str(answer))

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(submit, range(8)))
    again, answer = scene.post(web, prompts, key="the same")
    answers.add((again, answer["id"]))
    assert len(answers) == 1 and answers.pop()[0] == 202
    assert scene.ledger.runs.total() == 1
    assert scene.drained().outcomes["done"] == 20


def test_case_28_cancel_races_finish(scene: Scene) -> None:
    """Fault: a run is cancelled in the moment it ends. Injection: 1,000 runs of one prompt, each cancelled at a random
    moment around its end. Must hold: one terminal state each that never changes again; counts are true (I11).
    """
    scene.workers(2, SIMULATED_STEP="0.002")
    chance = random.Random(28)

    def race(_: int) -> str:
        run = scene.submit(1, kind=RunKind.ARENA, tokens=2)
        time.sleep(chance.uniform(0, 0.1))
        scene.service.act(run.id, RunAction.CANCEL)
        return run.id

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(race, range(RACES)))
    verdict = scene.drained(90)
    ended = {run_id: scene.ledger.runs.get(run_id) for run_id in ids}
    for run in ended.values():
        assert run.state.is_final and run.counts.ended == 1
    time.sleep(LEASE + 2)
    assert ended == {run_id: scene.ledger.runs.get(run_id) for run_id in ids}
    print(verdict.outcomes)
    assert min(verdict.outcomes[Outcome.DONE], verdict.outcomes[Outcome.CANCELLED]) > RACES / 20, "it was a race"


def test_case_29_cancelled_with_no_worker_alive(scene: Scene) -> None:
    """Fault: no worker is there to see a cancel. Injection: the only worker is killed while it holds chunks, then the
    run is cancelled; later a worker starts. Must hold: within 5 s nothing is added any more (I6); the run stays
    cancelled, what was done is kept.
    """
    worker = scene.workers(1)[0]
    run = scene.submit(200, tokens=30)
    until(lambda: scene.done(run) > 5 and scene.leased_by(worker), 20, "work has begun")
    worker.kill()
    done = scene.done(run)
    scene.service.act(run.id, RunAction.CANCEL)
    # Its last chunk and the run itself are closed in two transactions.
    until(lambda: scene.ledger.runs.get(run.id).finished is not None, 10, "it has ended without a worker")
    ended = scene.ledger.runs.get(run.id)
    assert ended.counts.pending == 0
    scene.worker()
    scene.wait_ready(1)
    time.sleep(3)
    assert scene.ledger.runs.get(run.id) == ended
    assert ended.state is RunState.CANCELLED and ended.counts.done >= done
    scene.drained()
