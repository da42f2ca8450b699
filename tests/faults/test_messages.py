"""Messages that get lost, are unknown or are forged: cases 21, 32 and 33."""

import base64
import json
import pickle
import uuid
from pathlib import Path

from celery import Celery

from tasks.queue.celery import make_app, queue_name
from tasks.states import RunKind
from tests.faults.deployment import MODEL, Scene
from tests.faults.processes import python, until

TRIES = 10
QUEUE = queue_name(MODEL, RunKind.BULK)


def test_case_21_frozen_worker_gets_a_message_and_is_killed(scene: Scene) -> None:
    """Fault: a worker dies with a message that Redis has handed to it. Injection: SIGSTOP while its connection waits in
    BRPOP, submit, SIGKILL when Redis has handed the message over (tried again where BRPOP ended too soon); another
    worker starts. Must hold: I2.
    """
    worker = scene.workers(1)[0]
    for _ in range(TRIES):
        scene.freeze(worker)
        published = pushes(scene)
        scene.submit(3)
        until(lambda before=published: pushes(scene) > before, 5, "a message is published")
        if scene.redis.client.llen(QUEUE) == 0:
            break
        worker.thaw()
        scene.drained()
    else:
        raise AssertionError("Redis never handed a message to the frozen worker")
    worker.kill()
    scene.worker()
    scene.drained()


def pushes(scene: Scene) -> int:
    """How many messages Redis has been given."""
    return int(scene.redis.client.info("commandstats").get("cmdstat_lpush", {}).get("calls", 0))


def test_case_32_an_old_worker_takes_messages(scene: Scene) -> None:
    """Fault: a worker of another version consumes the same queue and knows no task of that name. Injection: a Celery
    worker without tasks beside a real one. Must hold: it discards messages; the run completes nevertheless.
    """
    options = ["-Q", QUEUE, "-P", "solo", "-l", "INFO"]
    old = scene.start("old", python("celery", "-A", "tests.faults.old_worker", "worker", *options))
    scene.workers(1)
    until(lambda: "ready" in old.said, 20, "the old worker consumes")
    for _ in range(20):
        scene.submit(4)
    verdict = scene.drained(90)
    assert verdict.outcomes["done"] == 80
    assert "unregistered task" in old.said, "it took at least one message"


def test_case_33_forged_messages(scene: Scene, tmp_path: Path) -> None:
    """Fault: somebody who reaches Redis sends what does not belong there. Injection: a pickle that would write a file,
    no JSON at all, a task that does not exist, arguments of wrong type, number and size. Must hold: none of it is
    executed, the worker lives and works on.
    """
    worker = scene.workers(1)[0]
    app = make_app(scene.settings)
    mark = tmp_path / "executed"
    client = scene.redis.client
    client.lpush(QUEUE, message("generate", pickle.dumps(Bomb(str(mark))), "application/x-python-serialize"))
    client.lpush(QUEUE, message("generate", b"{", "application/json"))
    for arguments in ([], ["x"], [None], [2**70], [-1], [1, 2], [{"a": 1}]):
        send(app, "generate", arguments)
    send(app, "os.system", ["true"])
    scene.submit(30)
    assert scene.drained().outcomes["done"] == 30
    assert worker.popen.poll() is None and not mark.exists()


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, file: str):
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.file, "w")


def send(app: Celery, task: str, arguments: list[object]) -> None:
    app.send_task(task, args=arguments, queue=QUEUE)


def message(task: str, body: bytes, content_type: str) -> str:
    """A message as kombu stores it in Redis."""
    tag = str(uuid.uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "binary",
            "content-type": content_type,
            "headers": {"lang": "py", "task": task, "id": tag, "root_id": tag, "argsrepr": "", "kwargsrepr": ""},
            "properties": {
                "correlation_id": tag,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": tag,
            },
        }
    )
