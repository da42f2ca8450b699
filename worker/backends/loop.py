"""The thread that an engine runs on."""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from worker.backends.protocol import Failure
from worker.engine.protocol import Engine, Event, Request, Result

logger = logging.getLogger(__name__)

T = TypeVar("T")
EngineSink = Callable[[Event | Failure], None]


class EngineLoop:
    """Steps an engine for as long as it has work, and hands each event to whoever submitted the request.

    ``failures`` counts how often the engine has failed since it last made a token.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.failures = 0
        self._failed_at = 0
        self._inbox: queue.SimpleQueue[tuple[Request, EngineSink]] = queue.SimpleQueue()
        self._sinks: dict[str, EngineSink] = {}

    def start(self) -> None:
        """Run on a thread of its own."""
        threading.Thread(target=self.run, name="engine", daemon=True).start()

    def submit(self, request: Request, sink: EngineSink) -> None:
        """Run a request; ``sink`` is called on the engine's thread and must not block."""
        self._inbox.put((request, sink))

    def cancel(self, request_id: str) -> None:
        self.engine.cancel(request_id)

    def run(self) -> None:
        """Step on this thread for as long as the process lives."""
        while True:
            try:
                self._take_in()
                self.engine.step(self._emit)
            except BaseException as error:
                logger.exception("the engine failed")
                self._fail_all(error)

    def _take_in(self) -> None:
        """Add what waits in the inbox, sleeping while there is nothing to do."""
        while True:
            try:
                request, sink = self._inbox.get(block=not self.engine.active)
            except queue.Empty:
                return
            self._sinks[request.id] = sink
            self.engine.add(request)

    def _emit(self, event: Event) -> None:
        ends = isinstance(event, Result)
        sink = self._sinks.pop(event.request_id, None) if ends else self._sinks.get(event.request_id)
        # Nobody waits for what the engine still says of requests that a failure of its has ended.
        if sink is not None:
            sink(event)

    def _fail_all(self, error: BaseException) -> None:
        self.failures = self.failures + 1 if self.engine.progress == self._failed_at else 1
        self._failed_at = self.engine.progress
        for request_id in list(self._sinks):
            self.engine.cancel(request_id)
            self._sinks.pop(request_id)(Failure(request_id, f"{type(error).__name__}: {error}"))


def start_where_loaded(load: Callable[[], tuple[T, EngineLoop]]) -> T:
    """Load on a new thread, which then runs the loop; returns the other thing that was loaded.

    Raises what ``load`` raises. OpenMP keeps threads for every thread that ever computed in parallel. If another one
    had loaded the model, there would be more of them than cores, and then they fall asleep after every operation: an
    eighth of the speed.
    """
    loaded: Future[T] = Future()

    def work() -> None:
        try:
            result, loop = load()
        except BaseException as error:
            loaded.set_exception(error)
            return
        loaded.set_result(result)
        loop.run()

    threading.Thread(target=work, name="engine", daemon=True).start()
    return loaded.result()
