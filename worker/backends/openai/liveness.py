"""Tells a server that is slow from one that hangs: progress goes on while a sign of life is recent enough."""

import time


class Liveness:
    """``progress`` grows with every sign of life, and with every `tick` within ``timeout`` seconds of the last one.

    So a server that is slow to send its first byte keeps the leases of what it works on, and one that hangs loses them.
    """

    def __init__(self, timeout: float):
        self.timeout, self.progress = timeout, 0
        self._until = 0.0

    def sign(self, announced: float = 0.0) -> None:
        """Something came, or a wait of ``announced`` seconds begins whose end is known."""
        self.progress += 1
        self._until = max(self._until, time.monotonic() + self.timeout + announced)

    def tick(self) -> None:
        if time.monotonic() < self._until:
            self.progress += 1
