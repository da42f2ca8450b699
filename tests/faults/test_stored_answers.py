"""Answers that are stored or being computed, with real workers: each is computed once, whoever dies meanwhile."""

from collections import Counter
from typing import Any

from tasks.conversation import NewPrompt
from tasks.ledger.records import Run
from tasks.states import Origin, RunKind
from tests.faults.deployment import LEASE, Scene
from tests.faults.processes import Process, until

RECOVERY = LEASE + 10  # I8
TEXTS = [f"写一首关于第{number}个春天的诗" for number in range(60)]


def again(scene: Scene, texts: list[str], kind: RunKind = RunKind.BULK, **options: Any) -> Run:
    """Submit prompts that may have been submitted before."""
    prompts = [NewPrompt(text) for text in texts]
    run, _ = scene.service.submit(prompts=prompts, models=[scene.kind.model], owner="test", kind=kind, **options)
    scene.history.attempted[texts[0]] = texts
    scene.history.acknowledged[run.id] = texts[0]
    return run


def origins(scene: Scene, *runs: Run) -> Counter[Origin]:
    return Counter(row.origin for run in runs for row in scene.rows(run))


def test_each_answer_is_computed_once_with_real_models(calm_scene: Scene) -> None:
    """Two workers of a demo model and two runs of the same file at once; then the same again in every other way."""
    scene, sampling = calm_scene, {"max_new_tokens": 24, "seed": 5}
    scene.workers(2)
    runs = [again(scene, TEXTS, sampling=sampling) for _ in range(2)]
    assert scene.drained(90).outcomes["done"] == 2 * len(TEXTS)
    assert origins(scene, *runs) == {Origin.COMPUTED: len(TEXTS), Origin.CACHED: len(TEXTS)}
    texts = [{row.idx: row.text for row in scene.rows(run)} for run in runs]
    assert texts[0] == texts[1] and len({row.seed for row in scene.rows(runs[0])}) == len(TEXTS)
    repeated = again(scene, TEXTS, sampling=sampling)
    fresh = again(scene, TEXTS[:8], sampling=sampling, fresh=True)
    watched = again(scene, TEXTS[:1], sampling=sampling, kind=RunKind.ARENA)
    other = again(scene, TEXTS[:8], sampling=sampling | {"seed": 6})
    until(lambda: all(scene.ledger.runs.get(run.id).finished for run in (repeated, fresh, watched, other)), 90, "done")
    assert origins(scene, repeated) == {Origin.CACHED: len(TEXTS)}
    assert {row.idx: row.text for row in scene.rows(repeated)} == texts[0]
    assert origins(scene, fresh, watched, other) == {Origin.COMPUTED: 17}


def test_killed_while_others_wait_for_its_answer(scene: Scene) -> None:
    """Fault: a worker dies that computes what others wait for. Injection: SIGKILL. Must hold: one of those who wait
    computes it within lease + 10 s (I8), and only one; whoever waits keeps its lease meanwhile.
    """
    texts = scene.prompts(1)
    workers = scene.workers(2, SIMULATED_STEP="0.05", STORED_ANSWERS="1")
    sampling = {"max_new_tokens": 160, "temperature": 0}  # longer than a lease
    first = again(scene, texts, sampling=sampling)

    def holder() -> Process | None:
        return next((worker for worker in workers if scene.leased_by(worker)), None)

    until(holder, 20, "it is being computed")
    victim = holder()
    assert victim is not None
    waiting = next(worker for worker in workers if worker is not victim)
    runs = [again(scene, texts, sampling=sampling) for _ in range(6)]
    until(lambda: scene.leased_by(waiting), 20, "the other worker awaits it")
    victim.kill()
    assert scene.drained(RECOVERY + 60).outcomes["done"] == 7
    assert origins(scene, first, *runs) == {Origin.COMPUTED: 1, Origin.CACHED: 6}
    assert len({row.text for run in runs for row in scene.rows(run)}) == 1


def test_the_originals_are_deleted_while_others_copy_them(scene: Scene) -> None:
    """Fault: the run whose answers are being copied is deleted. Injection: it is, while the copying run is at work.
    Must hold: every prompt is answered once, by a copy or anew.
    """
    texts = scene.prompts(400)
    scene.workers(2, SIMULATED_STEP="0.001", STORED_ANSWERS="1")
    first = again(scene, texts, sampling={"max_new_tokens": 3})
    scene.drained()
    second = again(scene, texts, sampling={"max_new_tokens": 3})
    until(lambda: scene.done(second) > 0, 20, "some are copied")
    scene.ledger.control.delete(first.id)
    del scene.history.acknowledged[first.id]
    assert scene.drained().outcomes["done"] == 400
    assert origins(scene, second)[Origin.CACHED] > 0
