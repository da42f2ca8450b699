"""The speed of the whole way beside that of the engine alone: ``python -m worker.bench system --model poet-large``.

Prompts go in over HTTP and come out of the ledger: web, Redis, Celery, one worker and the scorer are all there. The
engine alone does the same prompts in a process of its own, by turns with the whole. The last line is JSON.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.errors import ConfigurationError, TouchstoneError
from tasks.host.supervisor import EXIT_CANNOT_START
from tasks.registry import LocalModel, Registry
from tasks.settings import Settings
from worker.backends.device import choose_device, choose_dtype
from worker.bench import queue
from worker.bench.deployment import scene
from worker.bench.generation import Contestant, Failed, at_least_one, median_round, ratio, take_turns
from worker.bench.models import SIZES, save_random
from worker.bench.over_http import Site, prompts_of, registry_of
from worker.bench.traffic import Load

DTYPES = ("auto", "float32", "bfloat16")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.bench system", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="NAME|DIR", help="a model of the registry, or as transformers saves it")
    source.add_argument("--random-weights", choices=SIZES, help="a model of this shape, with random weights")
    parser.add_argument("--prompts", type=at_least_one, default=1000)
    parser.add_argument("--prompt-tokens", type=at_least_one, default=20)
    parser.add_argument("--new-tokens", type=at_least_one, default=64)
    parser.add_argument("--slots", type=at_least_one, default=64)
    parser.add_argument("--threads", type=at_least_one, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--database", default="sqlite", help="sqlite, postgresql or the URL of an empty database")
    parser.add_argument("--rounds", type=at_least_one, default=3, help="after one to warm up, by turns")
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    say: Callable[[str], Any] = (lambda line: None) if options.json else (lambda line: sys.stdout.write(line + "\n"))
    try:
        with _load(options) as load:
            outcome = compare(load, options.database, options.rounds, say)
    except TouchstoneError as error:
        sys.stderr.write(f"{error.message}\n")
        return EXIT_CANNOT_START
    except (Failed, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    outcome["run"] |= {"model": options.model or options.random_weights, "rounds": options.rounds}
    sys.stdout.write(json.dumps(outcome, ensure_ascii=False, sort_keys=True) + "\n")
    return 0


def compare(load: Load, database: str, rounds: int, say: Callable[[str], Any]) -> dict[str, Any]:
    """The median rounds of the whole and of the engine alone, and the one's speed as a share of the other's."""
    engine = Contestant("engine", sys.executable, load)
    with contextlib.closing(engine), scene(database, registry_of(load)) as settings:
        with Site(settings, prompts_of(load), load.threads).running() as site:
            measured = take_turns([site, engine], rounds, say)
        whole, alone = measured["system"], measured["engine"]
        return {
            "what": "system",
            "system": median_round(whole),
            "engine": median_round(alone),
            "ratios": {"whole": ratio(whole, alone), "steady": ratio(whole, alone, "steady_tokens_per_second")},
            "rounds": measured,
            "run": asdict(load) | engine.environment | queue.environment(settings),
        }


@contextlib.contextmanager
def _load(options: argparse.Namespace) -> Iterator[Load]:
    dtype = str(choose_dtype(options.dtype, choose_device("cpu"))).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as folder:
        if options.random_weights:
            save_random(options.random_weights, dtype, folder)
        yield Load(
            model=folder if options.random_weights else _folder(options.model),
            openvino=None,
            requests=options.prompts,
            concurrency=options.slots,
            prompt_tokens=options.prompt_tokens,
            new_tokens=options.new_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            ignore_eos=False,
            dtype=dtype,
            device="cpu",
            threads=options.threads,
            deterministic=False,
            native=True,
        )


def _folder(model: str) -> str:
    """The folder of a model that is given by its own or by its name in the registry.

    Raises `NotFound`, and `ConfigurationError` for a model of a server.
    """
    if Path(model).is_dir():
        return str(Path(model).absolute())
    entry = Registry.load(Settings.from_environment().models).get(model)
    if not isinstance(entry, LocalModel):
        raise ConfigurationError(f"{model} is answered by a server; name a model of the engine's own.")
    return entry.location
