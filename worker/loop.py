"""The thread that an engine runs on."""

import logging
import queue
import threading
from collections.abc import Callable

from tasks.states import FinishReason
from worker.engine.protocol import Engine, Event, Request, Result

logger = logging.getLogger(__name__)

Sink = Callable[[Event], None]


class EngineLoop:
    """Steps an engine for as long as it has work, and hands each event to whoever submitted the request."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._inbox: queue.SimpleQueue[tuple[Request, Sink] | None] = queue.SimpleQueue()
        self._sinks: dict[str, Sink] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step."""
        self._inbox.put(None)
        self._thread.join()

    def submit(self, request: Request, sink: Sink) -> None:
        """Run a request; ``sink`` is called on the engine's thread and must not block."""
        self._inbox.put((request, sink))

    def cancel(self, request_id: str) -> None:
        self.engine.cancel(request_id)

    def _run(self) -> None:
        while self._take_in():
            try:
                self.engine.step(self._emit)
            except BaseException as error:
                logger.exception("the engine failed")
                self._fail_all(error)

    def _take_in(self) -> bool:
        """Add what waits in the inbox, sleeping while there is nothing to do; False when the loop shall end."""
        while True:
            try:
                item = self._inbox.get(block=not self.engine.active)
            except queue.Empty:
                return True
            if item is None:
                return False
            request, sink = item
            self._sinks[request.id] = sink
            self.engine.add(request)

    def _emit(self, event: Event) -> None:
        sink = self._sinks.pop(event.request_id) if isinstance(event, Result) else self._sinks[event.request_id]
        sink(event)

    def _fail_all(self, error: BaseException) -> None:
        for request_id in list(self._sinks):
            self.engine.cancel(request_id)
            text = f"The engine failed: {type(error).__name__}: {error}"
            self._emit(Result(request_id, "", FinishReason.ERROR, 0, 0, None, None, None, 0, text))
