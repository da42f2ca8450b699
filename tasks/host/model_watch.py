"""Says what the workers of this machine do until they are ready, and stops one that its model ends again and again."""

import logging
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Collection, Sequence

from tasks.errors import Unavailable
from tasks.host.supervisor import Child, describe, say
from tasks.ledger import Ledger
from tasks.ledger.records import Worker
from tasks.states import LoadStage, WorkerState

logger = logging.getLogger(__name__)

MOST_LOADS = 3  # that may end with the death of their process
SHARE_STEP = 0.25  # of a stage, after which its share is said again
WORDS = {
    LoadStage.STARTING: "starting",
    LoadStage.DOWNLOADING: "downloading",
    LoadStage.CONVERTING: "converting, once",
    LoadStage.READING: "reading weights",
    LoadStage.BUILDING_KERNELS: "building kernels for this processor, once; this takes about a minute",
    LoadStage.PREPARING: "preparing",
    LoadStage.STARTING_SERVER: "starting its server",
    LoadStage.WARMING_UP: "warming up",
}


class ModelWatch:
    """Looks at the ledger for this machine's workers."""

    def __init__(self, ledger: Ledger, models: Collection[str], url: str):
        """``models`` are those that this machine starts workers for, ``url`` is where its pages will be.

        What workers of before have come to tells nothing of those that are started from now on. Raises `Unavailable`.
        """
        self.ledger, self.models, self.url = ledger, models, url
        self.host = socket.gethostname()
        self._said: dict[str, tuple[object, ...]] = {}
        self._deaths: Counter[str] = Counter()
        self._since = time.monotonic()
        self._from = ledger.clock()
        self._announced = False

    def tell(self) -> None:
        """Say what has changed since the last look. Raises `Unavailable`."""
        mine = [one for one in self.ledger.workers.all() if one.host == self.host and one.started >= self._from]
        for worker in mine:
            if worker.alive:
                self._tell(worker)
        if not self._announced:
            self._announce(mine)

    def _announce(self, mine: Sequence[Worker]) -> None:
        """Say once where the pages are, when they answer and every model is ready or cannot be."""
        ready = {worker.model for worker in mine if worker.state is WorkerState.READY}
        failed = {worker.model for worker in mine if worker.state is WorkerState.FAILED} - ready
        if set(self.models) <= ready | failed and answers(self.url):
            self._announced = True
            without = f"; without {', '.join(sorted(failed))}" if failed else ""
            say(f"ready after {time.monotonic() - self._since:.0f} s: open {self.url}{without}")

    def _tell(self, worker: Worker) -> None:
        share = None if worker.stage_share is None else int(worker.stage_share / SHARE_STEP)
        state = (worker.state, worker.stage, share) if worker.state is WorkerState.LOADING else (worker.state,)
        if self._said.get(worker.id) == state:
            return
        self._said[worker.id] = state
        if worker.state is WorkerState.READY:
            self._deaths[worker.model] = 0
            say(f"{worker.model}: ready after {worker.load_seconds or 0.0:.1f} s")
        elif worker.stage:
            percent = "" if worker.stage_share is None else f" ({worker.stage_share:.0%})"
            say(f"{worker.model}: {WORDS[LoadStage(worker.stage)]}{percent} …")

    def died(self, child: Child, pid: int, code: int) -> str | None:
        """Show a worker's death at once; returns why it is not to be started again, None where it is.

        A model that ends its process while it is loaded, for want of memory or by a fault in its file, would do so for
        ever, and its runs would wait without a reason.
        """
        if child.model is None:
            return None
        try:
            dead = self.ledger.workers.died(self.host, pid)
            if dead is None or dead.state is not WorkerState.LOADING:
                return None
            self._deaths[child.model] += 1
            if self._deaths[child.model] < MOST_LOADS:
                return None
            stage = WORDS[LoadStage(dead.stage)].partition(",")[0] if dead.stage else "loading"
            killed = " It may need more memory than there is." if code == -9 else ""
            problem = f"{child.model}: its process ended {MOST_LOADS} times while {stage} ({describe(code)}).{killed}"
            self.ledger.workers.beat(dead.id, state=WorkerState.FAILED, error=problem)
        except Unavailable as error:
            logger.warning("%s", error)
            return None
        return problem


def answers(url: str, path: str = "/healthz") -> bool:
    """Whether the server at ``url`` says that it is healthy."""
    try:
        with urllib.request.urlopen(url + path, timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
