"""Server-Sent Events of a run: tokens as they come, then what the ledger says."""

import threading
import time
from collections.abc import Iterator

from pydantic import BaseModel

from tasks.errors import NotFound, Unavailable
from tasks.ledger.records import Run
from tasks.queue.live import LiveEvent
from tasks.service import Service
from web import views
from web.schema.answers import Delta

MAX_STREAMS = 24
LOOK_SECONDS = 0.5
MAX_SECONDS = 3600.0
ESTIMATE_SECONDS = 2.0
FINAL_COMPLETIONS = 200  # a page shows no more; the rest is read from the API

_open_streams = threading.BoundedSemaphore(MAX_STREAMS)


def stream(service: Service, run: Run, after: str) -> Iterator[str]:
    """Events of ``run`` after the event id ``after``: delta, completion, state, and end when the run has ended.

    Raises `Unavailable` when too many streams are open; a page then asks again now and then.
    """
    if not _open_streams.acquire(blocking=False):
        raise Unavailable("Too many pages are streaming; this one looks again every few seconds.")
    guarded = _guarded(service, run, after if _is_event_id(after) else "0")
    next(guarded)  # closing a generator that never began runs no finally: HEAD would keep the place for ever
    return guarded


def _guarded(service: Service, run: Run, after: str) -> Iterator[str]:
    try:
        yield ""
        yield from _events(service, run, after)
    except (NotFound, Unavailable):
        # The run was deleted, or the ledger is away: the page asks again and is told which of the two.
        return
    finally:
        _open_streams.release()


def _events(service: Service, run: Run, after: str) -> Iterator[str]:
    sent: set[tuple[str, int, int]] = set()
    looked, shown, until = 0.0, None, time.monotonic() + MAX_SECONDS
    estimated, left = 0.0, None
    while time.monotonic() < until:
        for event in _live(service, run.id, after):
            after = event.id
            if event.is_end:
                looked = 0.0
            else:
                yield _format("delta", _delta(event), event.id)
        if time.monotonic() - looked < LOOK_SECONDS:
            continue
        looked = time.monotonic()
        run = service.ledger.runs.get(run.id)
        for row in service.ledger.completions.page(run.id, limit=FINAL_COMPLETIONS):
            key = (row.model, row.idx, row.sample)
            if key not in sent:
                sent.add(key)
                yield _format("completion", views.completion(row))
        if time.monotonic() - estimated > ESTIMATE_SECONDS:
            estimated, left = time.monotonic(), service.remaining(run)
        state = views.progress(run, service.waits(run), left if run.counts.pending else None)
        yield ": still here\n\n" if state == shown else _format("state", state)
        shown = state
        if run.state.is_final and not run.counts.pending:
            yield _format("end", state)
            return


def _live(service: Service, run_id: str, after: str) -> list[LiveEvent]:
    try:
        return service.live.read(run_id, after, LOOK_SECONDS)
    except Unavailable:
        # Without Redis the ledger still tells everything, only later.
        time.sleep(LOOK_SECONDS)
        return []


def _delta(event: LiveEvent) -> Delta:
    return Delta(
        model=event.model,
        idx=event.idx,
        sample=event.sample,
        attempt=event.attempt,
        text=event.text,
        thinking=event.thinking,
    )


def _format(name: str, data: BaseModel, event_id: str | None = None) -> str:
    first = f"id: {event_id}\n" if event_id else ""
    return f"{first}event: {name}\ndata: {data.model_dump_json()}\n\n"


def _is_event_id(text: str) -> bool:
    return text.replace("-", "", 1).isdecimal()
