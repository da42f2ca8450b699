"""Workers that are killed, frozen and stopped: cases 1 to 7."""

import signal
import time
from pathlib import Path

import pytest

from tests.faults.deployment import LEASE, Scene
from tests.faults.processes import until

RECOVERY = LEASE + 10  # I8


def test_case_01_killed_while_generating(scene: Scene) -> None:
    """Fault: a worker dies without a word while it generates. Injection: SIGKILL while it holds leases.
    Must hold: its chunks are done elsewhere within lease + 10 s (I8); nothing is lost.
    """
    victim, _ = scene.workers(2)
    scene.submit(150, tokens=30)
    until(lambda: scene.leased_by(victim), 20, "the victim holds a chunk")
    held = scene.leased_by(victim)
    victim.kill()
    seconds = until(lambda: scene.states(held) == {"done"}, RECOVERY, "what it held is done")
    print(f"work went on after {seconds:.1f} s")
    assert scene.drained().outcomes["done"] == 150


def test_case_02_killed_between_last_write_and_close(scene: Scene, tmp_path: Path) -> None:
    """Fault: a worker dies when a chunk's results are committed, before the chunk is closed. Injection: it kills itself
    there, once. Must hold: the chunk is closed by another claim that finds nothing to do; nothing is seen twice.
    """
    marker = tmp_path / "killed"
    scene.workers(2, KILL_BEFORE_FINISH=str(marker))
    run = scene.submit(5)
    verdict = scene.drained()
    assert marker.exists() and verdict.outcomes["done"] == 5
    assert {row.attempt for row in scene.rows(run)} == {1}, "nothing was generated anew"


def test_case_03_killed_between_claim_and_admission(scene: Scene, tmp_path: Path) -> None:
    """Fault: a worker dies when it has claimed a chunk, before its engine knows of it. Injection: it kills itself
    there, once. Must hold: nothing is lost; the chunk is done at its second attempt.
    """
    marker = tmp_path / "killed"
    scene.workers(2)
    prompts = scene.prompts(40)
    prompts[20] = f"!die after claim {marker}"
    run = scene.submit(prompts)
    assert scene.drained().outcomes["done"] == 40
    assert marker.exists() and {row.attempt for row in scene.rows(run)} == {1, 2}


def test_case_04_frozen_beyond_its_lease(scene: Scene) -> None:
    """Fault: a worker stands still for longer than its lease, then goes on. Injection: SIGSTOP, three leases, SIGCONT.
    Must hold: its work is done elsewhere meanwhile; its late writes are fenced off (I3); it works on afterwards.
    """
    victim, other = scene.workers(2)
    run = scene.submit(100, tokens=30)
    until(lambda: scene.leased_by(victim), 20, "the victim holds a chunk")
    scene.freeze(victim)
    held = scene.leased_by(victim)
    until(lambda: scene.states(held) == {"done"}, RECOVERY, "what it held is done elsewhere")
    until(lambda: scene.done(run) == 100, 60, "all is done")
    before = {(row.idx, row.attempt, row.worker, row.written) for row in scene.rows(run)}
    time.sleep(max(0.0, 3 * LEASE - RECOVERY))
    victim.thaw()
    time.sleep(2)
    assert {(row.idx, row.attempt, row.worker, row.written) for row in scene.rows(run)} == before
    other.kill()
    scene.submit(20)
    scene.drained()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["case_05_SIGTERM", "case_06_SIGQUIT"])
def test_told_to_stop(scene: Scene, number: signal.Signals) -> None:
    """Fault: a worker is told to stop while a long completion runs. Injection: the signal. Must hold: what ends in time
    is kept; within drain + 5 s (30 s by default) its leases are given back, uncounted, and it has ended with code 0.
    """
    victim = scene.workers(1)[0]
    run = scene.submit([*scene.prompts(1), *scene.prompts(1)], tokens=600)
    until(lambda: scene.leased_by(victim), 20, "the victim holds a chunk")
    victim.send(number)
    assert victim.wait(scene.settings.drain + 5) == 0
    assert scene.leased_by(victim) == []
    scene.worker()
    assert scene.drained().outcomes["done"] == 2
    assert {row.attempt for row in scene.rows(run)} == {1}


def test_case_07_told_twice_then_killed(scene: Scene) -> None:
    """Fault: an impatient person. Injection: SIGTERM twice, then SIGKILL. Must hold: nothing is lost; the other worker
    goes on within lease + 10 s.
    """
    victim, _ = scene.workers(2)
    scene.submit(100, tokens=30)
    until(lambda: scene.leased_by(victim), 20, "the victim holds a chunk")
    victim.send(signal.SIGTERM)
    time.sleep(0.3)
    victim.send(signal.SIGTERM)
    time.sleep(0.3)
    held = scene.leased_by(victim)
    victim.kill()
    until(lambda: scene.states(held) <= {"done"}, RECOVERY, "what it held is done")
    assert scene.drained().outcomes["done"] == 100


def test_case_01_with_a_real_model(real_scene: Scene) -> None:
    """Case 1 with the real engine and a demo model, and a worker that is started again."""
    scene = real_scene
    victim = scene.workers(1)[0]
    scene.submit(150, tokens=None)
    until(lambda: scene.leased_by(victim), 30, "the victim holds a chunk")
    victim.kill()
    victim.start()
    assert scene.drained(90).outcomes["done"] == 150
