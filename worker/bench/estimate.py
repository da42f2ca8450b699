"""How often estimates hold: ``python -m worker.bench estimate``.

Runs of different sizes, models and limits go one after the other through a real system of the demo models. Each is
estimated before it is queued and when a quarter, half and three quarters of it are done. The last line is JSON.
"""

import argparse
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tasks.conversation import NewPrompt
from tasks.errors import TouchstoneError
from tasks.host.supervisor import EXIT_CANNOT_START
from tasks.host.up import share_cores
from tasks.ledger.records import Run
from tasks.measures.estimate import Estimate
from tasks.registry import Registry
from tasks.service import Service
from tasks.settings import ROOT, Settings
from worker.bench.deployment import scene
from worker.bench.generation import at_least_one
from worker.bench.processes import running
from worker.engine import processor

LOOK_SECONDS = 0.02
LONGEST_SECONDS = 300.0
SIZES = (1, 10, 100, 300, 1000, 2000)
LIMITS = (16, 32, 64)
STAGES = ("before", "25%", "50%", "75%")
OWNER = "bench"
WORDS = "春夏秋冬山水风月花雪江湖日夜松竹梅兰云雨"


@dataclass(frozen=True)
class Asked:
    """A run that is put to the system."""

    prompts: tuple[str, ...]
    models: tuple[str, ...]
    limit: int

    @property
    def lengths(self) -> dict[int, int]:
        sizes = [len(prompt) for prompt in self.prompts]
        return {size: sizes.count(size) for size in set(sizes)}


@dataclass
class Track:
    """Estimates of one run: ``waiting`` with when they were made, ``found`` with how long it took from then on."""

    waiting: dict[str, tuple[float, Estimate]] = field(default_factory=dict)
    found: list[dict[str, Any]] = field(default_factory=list)

    def note(self, stage: str, clock: float, estimate: Estimate) -> None:
        self.waiting[stage] = (clock, estimate)

    def end(self, asked: Asked, finished: float) -> None:
        for stage, (since, estimate) in self.waiting.items():
            about = {"stage": stage, "prompts": len(asked.prompts), "models": len(asked.models), "limit": asked.limit}
            self.found.append(about | {"low": estimate.low, "high": estimate.high, "took": finished - since})


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.bench estimate", description=__doc__)
    parser.add_argument("--runs", type=at_least_one, default=40, help="after one prompt to each model")
    parser.add_argument("--most", type=at_least_one, default=SIZES[-1], help="prompts of the largest run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", default="sqlite", help="sqlite, postgresql or the URL of an empty database")
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    say: Callable[[str], Any] = (lambda line: None) if options.json else (lambda line: sys.stdout.write(line + "\n"))
    registry = (ROOT / "models.toml").read_text(encoding="utf-8").replace('source = "', f'source = "{ROOT}/')
    found: list[dict[str, Any]] = []
    try:
        with scene(options.database, registry) as settings, _system(settings) as service:
            names = service.registry.names
            for name in names:
                _measure(service, Asked(("春",), (name,), max(LIMITS)))
            for asked in _plan(options, names):
                rows = _measure(service, asked)
                found += rows
                say(json.dumps(rows[0]))
    except TouchstoneError as error:
        sys.stderr.write(f"{error.message}\n")
        return EXIT_CANNOT_START
    except TimeoutError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    machine = {"processor": processor.chosen(), "cores": len(os.sched_getaffinity(0))}
    outcome = {"what": "estimate", "runs": options.runs, "stages": _summary(found), **machine, "estimates": found}
    sys.stdout.write(json.dumps(outcome) + "\n")
    return 0


@contextlib.contextmanager
def _system(settings: Settings) -> Iterator[Service]:
    """Workers of all models and a scorer, with everything loaded."""
    cores = share_cores(list(Registry.load(settings.models).models.values()), sorted(os.sched_getaffinity(0)))
    workers = [["worker", "--model", name, "--cores", ",".join(map(str, own))] for name, own in cores.items()]
    with running(settings, [["tasks", "scorer"], *workers]):
        service = Service(settings)
        with contextlib.closing(service.ledger):
            _wait(lambda: all(service.ledger.workers.ready(name) for name in cores), "the workers are not ready")
            yield service


def _plan(options: argparse.Namespace, names: Sequence[str]) -> Iterator[Asked]:
    chance = random.Random(options.seed)
    sizes = [size for size in SIZES if size <= options.most]
    for _ in range(options.runs):
        lengths = [chance.randint(2, 12) for _ in range(chance.choice(sizes))]
        prompts = tuple("".join(chance.choices(WORDS, k=length)) for length in lengths)
        models = tuple(chance.sample(names, chance.randint(1, len(names))))
        yield Asked(prompts, models, chance.choice(LIMITS))


def _measure(service: Service, asked: Asked) -> list[dict[str, Any]]:
    models, sampling = list(asked.models), {"max_new_tokens": asked.limit}
    track = Track()
    estimate = service.estimate(
        prompts=len(asked.prompts), lengths=asked.lengths, models=models, sampling=sampling, owner=OWNER
    )
    track.note(STAGES[0], service.ledger.clock(), estimate)
    prompts = [NewPrompt(prompt) for prompt in asked.prompts]
    run, _ = service.submit(prompts=prompts, models=models, sampling=sampling, owner=OWNER, fresh=True)
    _wait(lambda: _look(service, run.id, track), f"run {run.id} is not done")
    track.end(asked, service.ledger.runs.get(run.id).finished or 0.0)
    return track.found


def _look(service: Service, run_id: str, track: Track) -> bool:
    """Whether a run has ended; notes what is left of it at each of `STAGES`."""
    run: Run = service.ledger.runs.get(run_id)
    if run.state.is_final:
        return True
    quarter = 4 * run.counts.ended // run.counts.total
    if 0 < quarter < len(STAGES) and STAGES[quarter] not in track.waiting:
        track.note(STAGES[quarter], service.ledger.clock(), service.remaining(run))
    return False


def _wait(is_so: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + LONGEST_SECONDS
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"{otherwise} after {LONGEST_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)


def _summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each stage how many estimates there were, the share that held, and how wide the ranges were."""
    summary = {}
    for stage in STAGES:
        rows = [row for row in found if row["stage"] == stage and row["low"] is not None and row["high"] is not None]
        if rows:
            summary[stage] = {
                "n": len(rows),
                "held": sum(row["low"] <= row["took"] <= row["high"] for row in rows) / len(rows),
                "too_low": sum(row["took"] > row["high"] for row in rows) / len(rows),
                "width": median(row["high"] / max(row["low"], 1e-3) for row in rows),
            }
    return summary
