"""I10: nobody who reads Redis or logs reads prompts. Answers of arena runs pass through Redis on purpose, live."""

import uuid
from collections.abc import Callable

import pytest

from tasks.states import RunKind
from tests.faults.deployment import MODEL, Scene
from tests.faults.overheard import Eavesdropper, held_by
from tests.faults.processes import until


def test_no_prompt_in_redis_or_in_logs(scene: Scene) -> None:
    """Arena and bulk runs, prompts that end their attempt, a run that is cancelled, and requests that are refused: all
    that any client says to Redis meanwhile, all that lies in Redis, and the logs of web, scorer and worker.
    """
    mark = f"geheim{uuid.uuid4().hex}"
    heard = Eavesdropper(scene.redis.port)
    worker = scene.workers(1)[0]
    web = scene.web()
    bulk = scene.submit([f"{mark} {i}" for i in range(40)] + [f"!raise MemoryError {mark}"], tokens=40)
    arena = scene.submit([f"{mark} arena"], kind=RunKind.ARENA, tokens=100)
    key = f"live:{arena.id}"
    until(lambda: scene.redis.client.xlen(key) > 3, 20, "an answer streams")
    held = held_by(scene.redis.client)
    assert key.encode() in held
    for body in (
        {"prompts": [mark], "sampling": {"heat": 1}},
        {"prompts": [mark * 2000]},
        {"prompts": [mark], "x": mark},
    ):
        assert web.call("/api/runs", body)[0] == 422
    cancelled = scene.submit([f"{mark} cancelled"] * 3, tokens=200)
    assert web.call(f"/api/runs/{cancelled.id}/cancel", {})[0] == 200
    scene.drained(90)
    assert scene.ledger.runs.get(arena.id).counts.done == 1
    assert scene.ledger.runs.get(bulk.id).counts.done >= 40
    said = heard.end()
    assert b"generate" in said and MODEL.encode() in said and key.encode() in said, "it was listened to"
    assert b"MemoryError" in worker.log.read_bytes(), "failures are logged"
    for name, text in {"heard": said, "held": held, "kept": held_by(scene.redis.client)}.items():
        assert mark.encode() not in text, name
    for process in scene.processes:
        assert mark not in process.said, process.name


@pytest.mark.parametrize("put", ["list", "stream", "message"])
def test_a_prompt_in_redis_would_be_found(sqlite_scene: Scene, put: str) -> None:
    scene = sqlite_scene
    mark = f"geheim{uuid.uuid4().hex}"
    client = scene.redis.client
    heard = Eavesdropper(scene.redis.port)
    ways: dict[str, Callable[[], object]] = {
        "list": lambda: client.rpush("x", f"a {mark}"),
        "stream": lambda: client.xadd("x", {"t": mark * 3}),
        "message": lambda: scene.service.dispatching.dispatcher.app.send_task(
            "generate", [mark], queue=f"{MODEL}.bulk"
        ),
    }
    ways[put]()
    assert mark.encode() in held_by(client)
    client.flushall()
    assert mark.encode() in heard.end()
