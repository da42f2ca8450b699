"""Measure the queue without models: the real ledger, dispatcher, Celery, Redis and web under simulated engines.

First a large run is submitted and its pages are asked for; then, for each number of workers, simulated workers do a
smaller run to its end, once through the ledger alone and once through Celery, and the pages of what they did are asked
for. The last line is JSON.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tasks.conversation import NewPrompt
from tasks.errors import TouchstoneError
from tasks.host.supervisor import EXIT_CANNOT_START
from tasks.ledger import Ledger
from tasks.ledger.records import NewRun
from tasks.service import MAX_CHUNK
from tasks.settings import ROOT, Settings
from tasks.states import RunKind
from worker.bench.deployment import model_names, scene, simulated_models
from worker.bench.pages import page_times
from worker.bench.simulated_workers import Crew, Found, database_bytes, work

PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "psycopg")
PROMPT = "写一首关于春天的诗，第{}首，要有山、有水、有人。"
MODES = {"ledger": True, "celery": False}


def main(argv: list[str]) -> int:
    options = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the servers and workers too
    say = (lambda line: None) if options.json else (lambda line: sys.stderr.write(f"{line}\n"))
    found: dict[str, Any] = {"what": "queue", "arguments": argv, "submit": None, "pages": None, "work": []}
    try:
        if options.prompts:
            with scene(options.database, simulated_models(options.models)) as settings:
                found |= submit_and_look(settings, options.prompts)
            say(f"submit: {found['submit']}")
            for page, times in found["pages"].items():
                say(f"page {page}: {times}")
        for workers in options.workers if options.load else ():
            for mode in options.mode:
                with scene(options.database, simulated_models(options.models)) as settings:
                    found |= {"environment": environment(settings)}
                    measured, pages = load(settings, options, mode, workers)
                found["work"].append(measured.to_dict() | {"pages": pages})
                say(f"{mode}, {workers} workers: {measured.completions_per_second:.0f} completions/s; pages: {pages}")
    except TouchstoneError as error:
        sys.stderr.write(f"{error.message}\n")
        return EXIT_CANNOT_START
    except TimeoutError as error:
        sys.stderr.write(f"{error}; give more time with --seconds or less work with --load.\n")
        return 1
    sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.bench queue", description=__doc__)
    parser.add_argument("--database", default="sqlite", help="sqlite, postgresql or the URL of an empty database")
    parser.add_argument("--prompts", type=_number, default=1_000_000, help="prompts of the large run; 0: none")
    parser.add_argument("--models", type=_number, default=3)
    parser.add_argument("--workers", type=_number, nargs="+", default=[3, 30, 300, 1000], help="how many, one by one")
    parser.add_argument("--load", type=_number, default=20_000, help="completions for each number of workers; 0: none")
    parser.add_argument("--chunk", type=_number, default=MAX_CHUNK, help="prompts a chunk of the smaller run")
    parser.add_argument("--mode", choices=MODES, nargs="+", default=list(MODES))
    parser.add_argument(
        "--processes", type=_number, default=len(os.sched_getaffinity(0)), help="that share the workers"
    )
    parser.add_argument("--characters", type=_number, default=100, help="length of an answer")
    parser.add_argument("--scorer", action="store_true", help="let the scorer score what is done")
    parser.add_argument("--seconds", type=_number, default=120, help="longest time for one number of workers")
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    options = parser.parse_args(argv)
    if options.models < 1 or min(options.workers) < options.models:
        parser.error("there must be at least one model, and one worker for each")
    return options


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def environment(settings: Settings) -> dict[str, Any]:
    """What the numbers were measured with."""
    ledger = Ledger(settings)
    with ledger.database.read() as connection:
        query = "SELECT sqlite_version()" if ledger.database.is_sqlite else "SHOW server_version"
        server = connection.execute(text(query)).scalar_one()
    ledger.close()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "database": f"{ledger.database.engine.dialect.name} {server}",
    } | {name: version(name) for name in PACKAGES}


def submit_and_look(settings: Settings, prompts: int) -> dict[str, Any]:
    """Submit a run of that many prompts from a file, then ask for its pages."""
    file = settings.data / "prompts.txt"
    with file.open("w", encoding="utf-8") as out:
        out.writelines(PROMPT.format(number) + "\n" for number in range(prompts))
    ledger = Ledger(settings)
    before = database_bytes(ledger)
    submitted = _submit(settings, file)
    run_id = submitted.pop("run")
    run = ledger.runs.get(run_id)
    size = {"prompts": run.prompts, "models": len(run.models), "file_bytes": file.stat().st_size}
    size["database_bytes"] = database_bytes(ledger) - before
    pages = page_times(settings, ledger, run_id)
    ledger.close()
    return {"environment": environment(settings), "submit": size | submitted, "pages": pages}


def _submit(settings: Settings, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "worker.bench.intake", str(file)]
    environment = os.environ | settings.to_environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def load(
    settings: Settings, options: argparse.Namespace, mode: str, workers: int
) -> tuple[Found, dict[str, dict[str, float]]]:
    """Let workers do a run of ``options.load`` completions, then ask for its pages."""
    ledger = Ledger(settings)
    names = model_names(options.models)
    number = max(1, options.load // len(names))
    prompts = (NewPrompt(PROMPT.format(i)) for i in range(number))
    run, _ = ledger.runs.submit(NewRun(RunKind.BULK, "bench", dict.fromkeys(names, options.chunk), {}), prompts)
    crew = Crew(workers, options.processes, options.characters, MODES[mode], options.scorer)
    chunks = len(names) * -(-number // options.chunk)
    found = work(settings, ledger, run.id, chunks, crew, options.seconds)
    pages = page_times(settings, ledger, run.id)
    ledger.close()
    return found, pages
