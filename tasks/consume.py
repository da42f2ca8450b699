"""Celery's consumer, started from inside a process that has prepared itself."""

import os
import warnings

from celery.platforms import SecurityWarning

from tasks.celery import app


def consume(queues: list[str], pool: str, concurrency: int) -> None:
    """Take messages from ``queues`` until SIGTERM; then end what runs and return."""
    # Celery warns of root because of pickle; only JSON with one number in it is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    name = f"{queues[0].rsplit('.', 1)[0]}-{os.getpid()}@%h"
    app.Worker(
        queues=queues,
        pool=pool,
        concurrency=concurrency,
        hostname=name,
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    ).start()
