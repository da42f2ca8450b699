"""A bad cable: two interfaces, and between them frames that come late or never.

Does what tc's netem does, for kernels without it: needs only /dev/net/tun.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME = 65_536


class Wire:
    """Frames that enter at one of ``names`` leave at the other.

    ``delay`` seconds and ``loss`` (a share) are those from the second to the first; the way back is clean.
    """

    def __init__(self, names: tuple[str, str], delay: float, loss: float):
        self.delay, self.loss = delay, loss
        self.sent = self.lost = 0
        self._first, self._second = (open_tap(name) for name in names)
        self._chance = random.Random(19)
        self._underway: list[tuple[float, int, bytes]] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        os.close(self._first)
        os.close(self._second)

    def _run(self) -> None:
        while not self._stopping:
            now = time.monotonic()
            while self._underway and self._underway[0][0] <= now:
                self._pass_on(self._first, heapq.heappop(self._underway)[2])
            wait = min(0.1, self._underway[0][0] - now) if self._underway else 0.1
            for source in select.select([self._first, self._second], [], [], wait)[0]:
                frame = os.read(source, FRAME)
                if source == self._first:
                    self._pass_on(self._second, frame)
                else:
                    self._delay(frame)

    def _delay(self, frame: bytes) -> None:
        self.sent += 1
        if self._chance.random() < self.loss:
            self.lost += 1
        else:
            heapq.heappush(self._underway, (time.monotonic() + self.delay, self.sent, frame))

    def _pass_on(self, target: int, frame: bytes) -> None:
        try:
            os.write(target, frame)
        except OSError:
            # An interface that is down takes no frame: as on a cable, it is lost.
            self.lost += 1


def open_tap(name: str) -> int:
    """A new interface ``name``: what is written to the descriptor arrives there, what is sent there can be read."""
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap
