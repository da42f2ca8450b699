"""Measure the queue without models: the real ledger, dispatcher, Celery and Redis under simulated engines."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from sqlalchemy import text

from tasks.ledger import Ledger
from tasks.ledger.records import NewPrompt, NewRun
from tasks.states import RunKind
from worker.bench.scene import model_names, scene

PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "psycopg")


def main(argv: list[str]) -> int:
    options = parse(argv)
    with scene(options.database, options.models) as settings:
        ledger = Ledger(settings)
        found = {
            "what": "queue",
            "arguments": argv,
            "environment": environment(ledger),
            "submit": submit(ledger, options),
        }
        ledger.close()
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.bench queue", description=__doc__)
    parser.add_argument("--database", default="sqlite", help="sqlite, postgresql or the URL of an empty database")
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=128, help="prompts a chunk")
    return parser.parse_args(argv)


def environment(ledger: Ledger) -> dict[str, Any]:
    """What the numbers were measured with."""
    database = ledger.database
    with database.read() as connection:
        query = "SELECT sqlite_version()" if database.is_sqlite else "SHOW server_version"
        server = connection.execute(text(query)).scalar_one()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "database": f"{database.engine.dialect.name} {server}",
    } | {name: version(name) for name in PACKAGES}


def submit(ledger: Ledger, options: argparse.Namespace) -> dict[str, float]:
    """Seconds to store a run."""
    sizes = dict.fromkeys(model_names(options.models), options.chunk)
    started = time.monotonic()
    ledger.runs.submit(NewRun(RunKind.BULK, "bench", sizes, {}), prompts(options.prompts))
    return {"seconds": time.monotonic() - started}


def prompts(number: int) -> Iterator[NewPrompt]:
    for i in range(number):
        yield NewPrompt(f"写一首关于春天的诗，第{i}首，要有山、有水、有人。")
