"""The speed of the engine, alone and beside others: ``python -m worker.bench engine --random-weights gpt2:102m``.

Every one that is compared has a process of its own and they take turns, so that none shares threads or memory with
another and the machine's moods hit all alike. The last line is JSON.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from worker.bench.baselines import BASELINES
from worker.bench.models import DTYPES, SIZES, save_random
from worker.bench.traffic import Load

ELSEWHERE = ("openvino", "vllm")  # which may need a Python environment of their own
TRANSFORMERS = [name for name in BASELINES if name not in ELSEWHERE]


class Failed(Exception):
    """A contestant ended instead of answering; its own words stand above on standard error."""


class Measured(Protocol):
    """What is measured, round by round, by its ``tokens_per_second``."""

    name: str

    def run(self) -> dict[str, Any]:
        """Do the load once."""


class Contestant:
    """A process that does the load whenever it is asked to."""

    def __init__(self, name: str, python: str, load: Load):
        self.name = name
        try:
            self._process = subprocess.Popen(
                [python, "-m", "worker.bench.contestant", name, json.dumps(asdict(load))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise Failed(f"{name} cannot be started with {python}: {error.strerror}. Correct that path.") from error
        self.environment = self._answer()

    def run(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.name} ended with exit code {self._process.wait()}.")
        return dict(json.loads(line))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.bench engine", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="DIR", help="a model as transformers saves it")
    source.add_argument("--random-weights", choices=SIZES, help="a model of this shape, with random weights")
    parser.add_argument("--requests", type=at_least_one, default=128)
    parser.add_argument("--concurrency", type=at_least_one, default=64, help="requests in flight; the engine's slots")
    parser.add_argument("--prompt-tokens", type=at_least_one, default=20)
    parser.add_argument("--new-tokens", type=at_least_one, default=64)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=natural, default=0, help="0 leaves each its own choice")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--ignore-eos", action="store_true", help="always make all new tokens")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--without-native", action="store_true", help="torch's kernels instead of the engine's own")
    parser.add_argument("--rounds", type=at_least_one, default=3, help="after one to warm up, all by turns")
    parser.add_argument("--baseline", nargs="*", choices=TRANSFORMERS, default=[])
    parser.add_argument("--openvino", metavar="DIR", help="the same model as OpenVINO GenAI reads it")
    parser.add_argument("--vllm", action="store_true", help="the same model in vLLM")
    for name in ELSEWHERE:
        parser.add_argument(
            f"--{name}-python", metavar="PATH", default=sys.executable, help=f"where {name} is installed"
        )
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    return parser.parse_args(arguments)


def natural(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)


def at_least_one(text: str) -> int:
    return natural(text, 1)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    say: Callable[[str], Any] = (lambda line: None) if options.json else (lambda line: sys.stdout.write(line + "\n"))
    try:
        with tempfile.TemporaryDirectory() as folder:
            if options.random_weights:
                save_random(options.random_weights, options.dtype, folder)
            load = _load(options, options.model or folder)
            with _contestants(options, load) as contestants:
                outcome = compare(contestants, options.rounds, say)
    except Failed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    outcome["run"] |= asdict(load) | {"model": options.model or options.random_weights, "rounds": options.rounds}
    sys.stdout.write(json.dumps(outcome, sort_keys=True) + "\n")
    return 0


def compare(contestants: list[Contestant], rounds: int, say: Callable[[str], Any]) -> dict[str, Any]:
    """The first contestant's median round, with those of the others and how many times faster it is than each."""
    measured = take_turns(contestants, rounds, say)
    first, *others = measured
    medians = {name: median_round(runs) for name, runs in measured.items()}
    return medians[first] | {
        "baselines": {name: medians[name] for name in others},
        "ratios": {name: ratio(measured[first], measured[name]) for name in others},
        "run": contestants[0].environment | {"others": {each.name: each.environment for each in contestants[1:]}},
    }


def take_turns(
    contestants: Sequence[Measured], rounds: int, say: Callable[[str], Any]
) -> dict[str, list[dict[str, Any]]]:
    """What each contestant measured in each round, after one to warm up."""
    for contestant in contestants:
        contestant.run()
    measured: dict[str, list[dict[str, Any]]] = {contestant.name: [] for contestant in contestants}
    for _ in range(rounds):
        for contestant in contestants:
            measured[contestant.name].append(contestant.run())
            say(f"{contestant.name}: {measured[contestant.name][-1]['tokens_per_second']:.1f} tokens/s")
    return measured


def median_round(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The round of median speed."""
    return sorted(runs, key=lambda run: run["tokens_per_second"])[len(runs) // 2]


def ratio(
    one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], key: str = "tokens_per_second"
) -> dict[str, float]:
    """How many times faster ``one`` is than ``other``, by its ``key``.

    It is the median of the rounds' ratios: what slows the machine for a while slows both of a round.
    """
    ratios = sorted(a[key] / b["tokens_per_second"] for a, b in zip(one, other, strict=True))
    return {"median": ratios[len(ratios) // 2], "least": ratios[0], "most": ratios[-1]}


def _load(options: argparse.Namespace, model: str) -> Load:
    return Load(
        model=model,
        openvino=options.openvino,
        requests=options.requests,
        concurrency=options.concurrency,
        prompt_tokens=options.prompt_tokens,
        new_tokens=options.new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        ignore_eos=options.ignore_eos,
        dtype=options.dtype,
        device=options.device,
        threads=options.threads,
        deterministic=options.deterministic,
        native=not options.without_native,
    )


@contextlib.contextmanager
def _contestants(options: argparse.Namespace, load: Load) -> Iterator[list[Contestant]]:
    """The engine, then those it is compared with, all ready. Raises `Failed`."""
    pythons = dict.fromkeys(("engine", *options.baseline), sys.executable)
    pythons |= {name: getattr(options, f"{name}_python") for name in ELSEWHERE if getattr(options, name)}
    ready: list[Contestant] = []
    try:
        for name, python in pythons.items():
            ready.append(Contestant(name, python, load))
        yield ready
    finally:
        for contestant in ready:
            contestant.close()
