"""Measure files in and results out: ``python -m worker.bench files``.

Files of prompts are looked at, read and handed in, a model is added to the run, and the run is written out in every
way that is asked for; each in a process of its own, whose memory is told. With ``--cached`` a real worker answers a
run of prompts once, and then again from its stored answers. The last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import insert, literal, select, update

from tasks.errors import TouchstoneError
from tasks.files.write import ExportFormat
from tasks.host.supervisor import EXIT_CANNOT_START
from tasks.ledger import Ledger
from tasks.ledger.database import now
from tasks.ledger.tables import chunk, completion, prompt, run, run_model
from tasks.settings import ROOT, Settings
from tasks.states import ChunkState, RunState
from worker.bench.deployment import scene, simulated_models
from worker.bench.generation import at_least_one
from worker.bench.queue import environment
from worker.bench.stored import repeat

SUBJECTS = ("山", "水", "月", "风", "花", "雪", "故乡", "秋天", "大海", "旅途")
QUESTION = "第{}题：请以“{}”为题写一段话，要有具体的画面，不超过一百字。"
ANSWER = "远山如黛，江水悠悠，一叶扁舟在暮色里慢慢靠岸。" * 4
ROWS = {
    "csv": lambda number: f'{number},{SUBJECTS[number % 10]},"{_question(number)}",{ANSWER}\n'.encode(),
    "jsonl": lambda number: (
        orjson.dumps({"id": str(number), "category": SUBJECTS[number % 10], "question": _question(number)}) + b"\n"
    ),
}
POINTS = ("created", "enqueued", "claimed", "admitted", "first_token", "last_token", "written")
HEADS = {"csv": "编号,类别,问题,参考答案\n".encode(), "jsonl": b""}


def main(argv: list[str]) -> int:
    options = parse(argv)
    found: dict[str, Any] = {"what": "files", "arguments": argv}
    try:
        with scene(options.database, simulated_models(4)) as settings:
            found |= {"environment": environment(settings)} | measure(settings, options)
        if options.cached:
            found |= {"cached": repeat(options.database, options.cached)}
    except TouchstoneError as error:
        sys.stderr.write(f"{error.message}\n")
        return EXIT_CANNOT_START
    sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.bench files", description=__doc__)
    parser.add_argument("--megabytes", type=at_least_one, default=100, help="size of the file that is looked at")
    parser.add_argument("--prompts", type=at_least_one, default=1_000_000, help="prompts of the run")
    parser.add_argument("--formats", nargs="*", choices=list(ExportFormat), default=["csv", "jsonl"])
    parser.add_argument("--database", default="sqlite", help="sqlite, postgresql or the URL of an empty database")
    parser.add_argument("--cached", type=int, default=0, metavar="PROMPTS", help="of a run that is made twice; 0: none")
    return parser.parse_args(argv)


def measure(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """What each step took, in seconds and bytes."""
    found: dict[str, Any] = {}
    for kind in ROWS:
        with _file(kind, bytes_at_least=options.megabytes * 10**6) as file:
            found[f"preview_{kind}"] = _alone(settings, "preview", str(file)) | {"bytes": file.stat().st_size}
            found[f"read_{kind}"] = _alone(settings, "read", str(file))
    with _file("jsonl", rows=options.prompts) as file:
        submitted = _alone(settings, "submit", str(file))
    found["submit"] = submitted
    found["add_model"] = _alone(settings, "grow", submitted["run"])
    answer_everything(settings, submitted["run"], "simulated-0")
    for kind in options.formats:
        found[f"export_{kind}"] = _alone(settings, "export", submitted["run"], kind)
    return found


def answer_everything(settings: Settings, run_id: str, model: str) -> None:
    """Let a model of a run have answered every prompt, without any worker."""
    ledger = Ledger(settings)
    with ledger.database.write() as connection:
        values = {
            "run": prompt.c.run,
            "model": literal(model),
            "idx": prompt.c.idx,
            "sample": literal(0),
            "text": literal(ANSWER),
            "finish_reason": literal("stop"),
            "characters": literal(len(ANSWER)),
            "prompt_tokens": literal(30),
            "output_tokens": literal(60),
            **{name: now() + literal(seconds) for seconds, name in enumerate(POINTS)},
            "cold": literal(False),
            "attempt": literal(1),
        }
        rows = select(*(value.label(name) for name, value in values.items())).where(prompt.c.run == run_id)
        connection.execute(insert(completion).from_select(list(values), rows))
        here = (run_model.c.run == run_id) & (run_model.c.model == model)
        connection.execute(update(run_model).where(here).values(done=run_model.c.total))
        of_model = (chunk.c.run == run_id) & (chunk.c.model == model)
        connection.execute(update(chunk).where(of_model).values(state=ChunkState.DONE, scored=True))
        connection.execute(update(run).where(run.c.id == run_id).values(state=RunState.RUNNING))
    ledger.close()


@contextmanager
def _file(kind: str, bytes_at_least: int = 0, rows: int = 0) -> Iterator[Path]:
    """A file of prompts, of at least that many bytes and rows."""
    with tempfile.NamedTemporaryFile(suffix=f".{kind}") as file:
        size, number = file.write(HEADS[kind]), 0
        while size < bytes_at_least or number < rows:
            size += file.write(ROWS[kind](number))
            number += 1
        file.flush()
        yield Path(file.name)


def _question(number: int) -> str:
    return QUESTION.format(number, SUBJECTS[number % 10])


def _alone(settings: Settings, step: str, *arguments: str) -> dict[str, Any]:
    """One step in a process of its own."""
    command = [sys.executable, "-m", "worker.bench.files_alone", step, *arguments]
    started = time.monotonic()
    surrounding = os.environ | settings.to_environment()
    done = subprocess.run(command, cwd=ROOT, env=surrounding, stdout=subprocess.PIPE, check=True)
    found = dict(json.loads(done.stdout))
    sys.stderr.write(f"{step} {' '.join(arguments)}: {found} ({time.monotonic() - started:.1f} s with its start)\n")
    return found
