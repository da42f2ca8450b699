"""Chunks share the engine; one on its last attempt has it alone."""

import random
import threading
import time

from worker.isolation import Isolation


def test_one_that_runs_alone_has_nobody_beside_it() -> None:
    isolation, lock = Isolation(), threading.Lock()
    inside: list[str] = []
    most_sharing = 0

    def enter(kind: str) -> None:
        nonlocal most_sharing
        with isolation.alone() if kind == "alone" else isolation.shared():
            with lock:
                inside.append(kind)
                assert kind == "shared" or inside == ["alone"]
                assert kind == "alone" or "alone" not in inside
                most_sharing = max(most_sharing, inside.count("shared"))
            time.sleep(0.005)
            with lock:
                inside.remove(kind)

    failures: list[BaseException] = []

    def run(kind: str) -> None:
        try:
            enter(kind)
        except BaseException as error:
            failures.append(error)

    chance = random.Random(1)
    threads = [threading.Thread(target=run, args=[chance.choice(["alone", "shared", "shared"])]) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert not failures and most_sharing > 1


def test_one_that_fails_lets_the_next_in() -> None:
    isolation = Isolation()
    for way in (isolation.alone, isolation.shared, isolation.alone):
        try:
            with way():
                raise MemoryError
        except MemoryError:
            continue
    entered = threading.Event()

    def enter() -> None:
        with isolation.shared():
            entered.set()

    threading.Thread(target=enter).start()
    assert entered.wait(5)
