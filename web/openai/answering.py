"""Waiting for the answers to one request: live text while they come, the ledger for their end."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from tasks.errors import TouchstoneError, Unavailable
from tasks.ledger.records import Completion, Run
from tasks.openai.bodies import Asked
from tasks.openai.objects import CONTEXT_EXCEEDED, problem_of_answer
from tasks.queue.live import LiveEvent
from tasks.service import Service
from tasks.states import RunAction, RunKind
from web import views
from web.openai.errors import AnswerFailed, Busy

OWNER = "openai"
MAX_WAITING = 16  # requests at once: each holds a thread of the server, which pages need, too
LOOK_SECONDS = 0.5  # of silence, after which the ledger is asked
CHECK_SECONDS = 1.0  # between two looks whether the model is blocked
MAX_SECONDS = 3600.0

_places = threading.BoundedSemaphore(MAX_WAITING)


@contextmanager
def place() -> Iterator[None]:
    """A place among those who wait. Raises `Busy` when there is none."""
    if not _places.acquire(blocking=False):
        raise Busy(f"{MAX_WAITING} requests are being answered, as many as there are places; try again soon.")
    try:
        yield
    finally:
        _places.release()


class Answering:
    """The answers to ``asked``, made by a run of its own. A run that nobody waits for any more is cancelled."""

    def __init__(self, service: Service, asked: Asked, is_gone: Callable[[], bool]):
        """Raises `InvalidInput`, `NotFound`, `Unavailable`, and `AnswerFailed` where nobody runs the model."""
        self.service, self.asked, self.is_gone = service, asked, is_gone
        self.rows: list[Completion] = []
        self._after = "0"
        self.run: Run = service.submit(
            prompts=asked.prompts,
            models=[asked.model],
            sampling=asked.sampling,
            samples=asked.samples,
            kind=RunKind.ARENA,
            owner=OWNER,
            fresh=True,
        )[0]
        with self._cancelling():
            self._check()

    def events(self) -> Iterator[Sequence[LiveEvent]]:
        """Live text as it comes, nothing now and then, until every answer is in ``rows``.

        Raises `AnswerFailed` where the model is blocked or an answer did not end well. The run is cancelled by any
        exception, and when the caller goes away.
        """
        with self._cancelling():
            yield from self._events()
        if problem := problem_of_answer(self.rows):
            raise AnswerFailed(problem[1], problem[0], 400 if problem[0] == CONTEXT_EXCEEDED else 500)

    def _events(self) -> Iterator[Sequence[LiveEvent]]:
        checked = time.monotonic()
        until = checked + MAX_SECONDS
        while time.monotonic() < until:
            events = self._live()
            yield events
            if (not events or any(event.is_end for event in events)) and self._is_complete():
                return
            if self.is_gone():
                raise AnswerFailed("The client closed the connection.", "client_closed_request", 499)
            if not events and time.monotonic() - checked > CHECK_SECONDS:
                checked = time.monotonic()
                self._check()
        raise AnswerFailed(f"No answer within {MAX_SECONDS:.0f} s; the run was cancelled.", "timeout", 503)

    def _live(self) -> list[LiveEvent]:
        """What was heard since the last time, waited for up to `LOOK_SECONDS`."""
        try:
            events = self.service.live.read(self.run.id, self._after, LOOK_SECONDS)
        except Unavailable:
            time.sleep(LOOK_SECONDS)  # the ledger still has the answer, as a whole
            return []
        self._after = events[-1].id if events else self._after
        return events

    def _is_complete(self) -> bool:
        wanted = self.run.prompts * self.run.samples
        self.rows = self.service.ledger.completions.page(self.run.id, self.asked.model, limit=wanted)
        return len(self.rows) == wanted

    def _check(self) -> None:
        """Raises `AnswerFailed` where the answer would only come when somebody does something about the model."""
        wait = self.service.waits(self.service.ledger.runs.get(self.run.id)).get(self.asked.model)
        if wait and wait.reason.is_blocked:
            raise AnswerFailed(views.wait(wait).message, f"model_{wait.reason}", 503)

    @contextmanager
    def _cancelling(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with suppress(TouchstoneError):  # it is gone already, or cannot be reached
                self.service.act(self.run.id, RunAction.CANCEL)
            raise
