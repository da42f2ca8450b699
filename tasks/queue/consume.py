"""Celery's consumer, started from inside a process that has prepared itself."""

import logging
import os
import time
import warnings
from typing import Any

from celery.platforms import EX_FAILURE, SecurityWarning
from celery.signals import worker_ready

from tasks.queue.celery import app

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0


def consume(queues: list[str], pool: str, concurrency: int) -> None:
    """Take messages from ``queues`` until SIGTERM; then end what runs and return.

    A consumer of Celery's that has worked and gives up is followed by another: where a connection is lost while it is
    being made again, closing it raises what Celery takes for the end.
    """
    worked = []

    def note(**_: Any) -> None:
        worked.append(True)

    worker_ready.connect(note)
    while _consume(queues, pool, concurrency) == EX_FAILURE and worked:
        logger.warning("Celery has given up consuming; starting anew")
        time.sleep(AGAIN_SECONDS)


def _consume(queues: list[str], pool: str, concurrency: int) -> int | None:
    # Celery warns of root because of pickle; only JSON with one number in it is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    name = f"{queues[0].rsplit('.', 1)[0]}-{os.getpid()}@%h"
    worker = app.Worker(
        queues=queues,
        pool=pool,
        concurrency=concurrency,
        hostname=name,
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return worker.exitcode
