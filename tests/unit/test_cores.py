"""A worker's cores, for all its threads."""

import os
import threading

import pytest

from tasks.errors import ModelError
from worker.cores import pin_cores


def test_threads_that_start_later_are_pinned_too() -> None:
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    found: list[set[int]] = []

    def pinned() -> None:
        pin_cores((core,))
        later = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
        later.start()
        later.join()

    # On a thread of its own, so that the tests' stays free.
    thread = threading.Thread(target=pinned)
    thread.start()
    thread.join()
    assert found == [{core}] and os.sched_getaffinity(0) == before


def test_no_cores_leave_all() -> None:
    before = os.sched_getaffinity(0)
    pin_cores(())
    assert os.sched_getaffinity(0) == before


def test_a_core_that_is_not_here_is_named() -> None:
    with pytest.raises(ModelError, match=r"\[4095\].*Correct cores"):
        pin_cores((4095,))
