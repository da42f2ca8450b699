"""Who may use the engine together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Isolation:
    """Lets chunks share the engine, except one that runs alone: for its time nothing else runs.

    A chunk on its last attempt runs alone, so that only the prompt which ends a worker fails, never its neighbours.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._alone = 0  # running alone, or waiting for it

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Run beside others; waits while one runs alone or waits to."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run with nothing beside; waits until the others have ended and lets no other begin."""
        with self._changed:
            self._alone += 1
            self._changed.wait_for(lambda: not self._sharing)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._alone -= 1
                self._changed.notify_all()
