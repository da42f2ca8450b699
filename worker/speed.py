"""How fast a worker is."""

import threading
import time


class Speed:
    """Completions a second, over the time since the worker was last idle; ``value`` is None until one was computed."""

    def __init__(self) -> None:
        self.value: float | None = None
        self.running = 0  # chunks
        self._computed = 0
        self._busy_since = 0.0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A chunk is begun."""
        with self._lock:
            if not self.running:
                self._busy_since, self._computed = time.monotonic(), 0
            self.running += 1

    def end(self, computed: int) -> None:
        """A chunk has ended, of which so many completions were computed: stored answers say nothing of speed."""
        with self._lock:
            self.running -= 1
            self._computed += computed
            if self._computed:
                self.value = self._computed / max(time.monotonic() - self._busy_since, 1e-3)
