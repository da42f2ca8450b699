"""The whole system over a server beside that server driven alone: ``python -m worker.bench server … -- COMMAND``.

COMMAND starts a server that speaks OpenAI's interface, as ``serve`` in models.toml does, with ``{source}``, ``{port}``
and ``{slots}``. The whole starts one of its own and answers prompts from HTTP to the ledger; the other is asked
directly, as many requests at once. Both take turns. The last line is JSON.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tasks.errors import TouchstoneError
from tasks.host.model_watch import answers
from tasks.host.redis_server import free_port
from tasks.host.supervisor import EXIT_CANNOT_START
from tasks.registry import OpenAIModel
from tasks.registry.entry import BackendKind
from worker.bench import queue
from worker.bench.deployment import scene
from worker.bench.generation import at_least_one, median_round, ratio, take_turns
from worker.bench.over_http import MODEL, Site

TIMEOUT = 600.0
START_SECONDS = 600.0
LOOK_SECONDS = 0.25
SUBJECTS = ("the sea", "an old bridge", "winter", "a good friend", "bread", "the night train", "a small town", "rain")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.bench server", description=__doc__)
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="that starts the server, after --")
    parser.add_argument("--source", required=True, help="what {source} stands for")
    parser.add_argument("--model", help="the model's name there [its source]")
    parser.add_argument("--prompts", type=at_least_one, default=200)
    parser.add_argument("--concurrency", type=at_least_one, default=16)
    parser.add_argument("--new-tokens", type=at_least_one, default=64)
    parser.add_argument("--rounds", type=at_least_one, default=3, help="after one to warm up, by turns")
    parser.add_argument("--database", default="sqlite", help="sqlite, postgresql or the URL of an empty database")
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    say: Callable[[str], Any] = (lambda line: None) if options.json else (lambda line: sys.stdout.write(line + "\n"))
    entry = OpenAIModel(
        name=MODEL,
        backend=BackendKind.OPENAI,
        serve=options.command,
        source=options.source,
        model=options.model,
        concurrency=options.concurrency,
        decoding={"max_new_tokens": options.new_tokens, "temperature": 0},
    )
    prompts = make_prompts(options.prompts)
    threads = len(os.sched_getaffinity(0))
    try:
        with scene(options.database, registry_of(entry)) as settings, Alone(entry, prompts).running() as alone:
            with Site(settings, prompts, threads, START_SECONDS).running() as site:
                measured = take_turns([site, alone], options.rounds, say)
            run = queue.environment(settings) | {name: value for name, value in vars(options).items() if name != "json"}
    except TouchstoneError as error:
        sys.stderr.write(f"{error.message}\n")
        return EXIT_CANNOT_START
    except TimeoutError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    whole, server = measured["system"], measured["server"]
    outcome = {
        "what": "server",
        "system": median_round(whole),
        "server": median_round(server),
        "ratios": {"whole": ratio(whole, server), "steady": ratio(whole, server, "steady_tokens_per_second")},
        "rounds": measured,
        "run": run,
    }
    sys.stdout.write(json.dumps(outcome, ensure_ascii=False, sort_keys=True) + "\n")
    return 0


class Alone:
    """Implements `worker.bench.generation.Measured`: the server, asked directly."""

    name = "server"

    def __init__(self, entry: OpenAIModel, prompts: Sequence[str]):
        self.entry, self.prompts = entry, prompts
        self.port = free_port()

    @contextlib.contextmanager
    def running(self) -> Iterator["Alone"]:
        """The server started and healthy. Raises `TimeoutError`."""
        values = {"source": self.entry.source, "port": self.port, "slots": self.entry.concurrency}
        server = subprocess.Popen(
            [word.format(**values) for word in self.entry.serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until = time.monotonic() + START_SECONDS
            while not answers(f"http://127.0.0.1:{self.port}", "/health"):
                if server.poll() is not None or time.monotonic() > until:
                    raise TimeoutError(f"{self.entry.serve[0]} did not become healthy; try the command by hand.")
                time.sleep(LOOK_SECONDS)
            yield self
        finally:
            server.terminate()
            server.wait()

    def run(self) -> dict[str, Any]:
        """Answer all prompts, ``concurrency`` at once."""
        started = time.monotonic()
        with ThreadPoolExecutor(self.entry.concurrency) as pool:
            tokens = sum(pool.map(self._ask, self.prompts))
        seconds = time.monotonic() - started
        rates = {"completions_per_second": len(self.prompts) / seconds, "tokens_per_second": tokens / seconds}
        return {"tokens": tokens, "seconds": seconds, **rates, "steady_tokens_per_second": tokens / seconds}

    def _ask(self, prompt: str) -> int:
        """Tokens of the answer."""
        body = {
            "model": self.entry.model or self.entry.source,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.entry.decoding["max_new_tokens"],
            "temperature": 0,
        }
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return int(json.load(response)["usage"]["completion_tokens"])


def make_prompts(number: int) -> list[str]:
    """Different short questions; the same at every call."""
    return [f"Write two sentences about {SUBJECTS[i % len(SUBJECTS)]}, version {i}." for i in range(number)]


def registry_of(entry: OpenAIModel) -> str:
    """A registry (TOML) of the one model that is measured."""
    values = entry.snapshot()
    settings = ", ".join(f"{name} = {value}" for name, value in values["decoding"].items())
    keys = ("name", "backend", "serve", "source", "model", "concurrency")
    lines = [f"{key} = {json.dumps(values[key])}" for key in keys if key in values]
    return "\n".join(["[[model]]", *lines, f"decoding = {{ {settings} }}", ""])
