"""The two Celery tasks. What `generate` does is given by the worker process that attaches itself."""

import logging
from collections.abc import Callable

from tasks.errors import TouchstoneError
from tasks.queue.celery import app

logger = logging.getLogger(__name__)
_handlers: dict[str, Callable[[int], None]] = {}


def attach(task: str, handler: Callable[[int], None]) -> None:
    """Let ``handler`` do the work of ``task`` (``generate`` or ``score``) in this process."""
    _handlers[task] = handler


@app.task(name="generate")
def generate(chunk_id: int) -> None:
    """Claim a chunk and generate its completions."""
    _run("generate", chunk_id)


@app.task(name="score")
def score(chunk_id: int) -> None:
    """Score the completions of an ended chunk."""
    _run("score", chunk_id)


def _run(task: str, chunk_id: int) -> None:
    # SystemExit and MemoryError inside a pool thread would cost the thread for good: nothing may leave here.
    try:
        _handlers[task](chunk_id)
    except TouchstoneError as error:
        logger.warning("%s of chunk %d: %s The sweeper will put it back.", task, chunk_id, error)
    except BaseException:
        logger.exception("%s of chunk %d failed; the sweeper will put it back", task, chunk_id)
