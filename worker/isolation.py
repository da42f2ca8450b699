"""Who may use the engine together."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


class Isolation:
    """Lets chunks share the engine, except one that runs alone: for its time nothing else runs.

    A chunk on its last attempt runs alone, so that only the prompt which ends a worker fails, never its neighbours.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone = 0  # running alone, or waiting for it

    def shared(self) -> AbstractContextManager[None]:
        """Run beside others; waits while one runs alone or waits to."""
        return self._run(alone=False)

    def alone(self) -> AbstractContextManager[None]:
        """Run with nothing beside; waits until the others have ended and lets no other begin."""
        return self._run(alone=True)

    @contextmanager
    def _run(self, *, alone: bool) -> Iterator[None]:
        with self._changed:
            self._alone += alone
            self._changed.wait_for(lambda: not (self._running if alone else self._alone))
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._alone -= alone
                self._changed.notify_all()
