"""A whole Touchstone with one model, measured from outside: prompts in over HTTP, rows in the ledger."""

import contextlib
import json
import os
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

from transformers import AutoTokenizer

from tasks.host.redis_server import free_port
from tasks.ledger import Ledger
from tasks.ledger.records import Completion
from tasks.settings import Settings
from tasks.states import Outcome
from worker.bench.processes import START_SECONDS, Process, cpu_seconds, running, wait_for_web
from worker.bench.traffic import Load, make_prompts

MODEL = "measured"
LOOK_SECONDS = 0.25
LONGEST_SECONDS = 600.0


class Site:
    """Implements `worker.bench.generation.Measured` for everything from the API to the ledger."""

    name = "system"

    def __init__(self, settings: Settings, prompts: Sequence[str], threads: int, start_seconds: float = START_SECONDS):
        self.settings, self.threads, self.start_seconds = settings, threads, start_seconds
        self.url = f"http://127.0.0.1:{free_port()}"
        self.ledger = Ledger(settings)
        self._processes: dict[str, Process] = {}
        self._prompts = list(prompts)

    @contextlib.contextmanager
    def running(self) -> Iterator["Site"]:
        """The site with all its processes started and its model loaded. Raises `TimeoutError`."""
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[: self.threads]))
        commands = {
            "web": ["tasks", "web", "--port", self.url.rpartition(":")[2]],
            "scorer": ["tasks", "scorer"],
            "worker": ["worker", "--model", MODEL, "--cores", cores],
        }
        with contextlib.closing(self.ledger), running(self.settings, list(commands.values())) as processes:
            self._processes = dict(zip(commands, processes, strict=True))
            wait_for_web(self.url)
            self._wait(lambda: self.ledger.workers.ready(MODEL) > 0, self.start_seconds, "the worker is not ready")
            yield self

    def run(self) -> dict[str, Any]:
        """Submit the prompts and measure until the last completion is written; wait for their scores, too."""
        before = self._cpu_seconds()
        submitted = time.time()
        run_id = self.submit(fresh=True)
        accepted = time.time()
        self.wait_until_done(run_id)
        cpu = {name: round(seconds - before[name], 2) for name, seconds in self._cpu_seconds().items()}
        self._wait(lambda: not self.ledger.scores.unscored(), LONGEST_SECONDS, "the run is not scored")
        scored = time.time()
        found = summarize(list(self.ledger.completions.every(run_id)), submitted)
        return found | {
            "submit_seconds": accepted - submitted,
            "scored_seconds": scored - submitted,
            "cpu_seconds": cpu,
        }

    def submit(self, fresh: bool) -> str:
        """Hand the prompts in; returns the run's id. ``fresh`` takes no stored answers."""
        body = {"prompts": self._prompts, "models": [MODEL], "kind": "bulk", "fresh": fresh}
        return str(self._call("/api/runs", body)["id"])

    def wait_until_done(self, run_id: str) -> None:
        """Raises `TimeoutError`."""
        self._wait(lambda: self._call(f"/api/runs/{run_id}")["state"] == "done", LONGEST_SECONDS, "the run is not done")

    def _cpu_seconds(self) -> dict[str, float]:
        # The web's work is done by a child of the process that was started.
        return {name: cpu_seconds(process) for name, process in self._processes.items() if name != "web"}

    def _wait(self, is_so: Any, seconds: float, otherwise: str) -> None:
        until = time.monotonic() + seconds
        while not is_so():
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > until:
                raise TimeoutError(f"{', '.join(ended)} ended" if ended else f"{otherwise} after {seconds:.0f} s")
            time.sleep(LOOK_SECONDS)

    def _call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)


def summarize(rows: Sequence[Completion], submitted: float) -> dict[str, Any]:
    """Rates from the submission, and (``steady``) from the first admission, to the last completion written.

    ``mean_in_flight`` is how many completions were in the engine at a time, between first admission and last token.
    """
    done = [row for row in rows if row.finish_reason.outcome is Outcome.DONE]
    spans = [(row.admitted, row.last_token) for row in done if row.admitted is not None and row.last_token is not None]
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    written = max(row.written for row in rows)
    tokens = sum(row.output_tokens or 0 for row in rows)
    return {
        "completions": len(rows),
        "failed": len(rows) - len(done),
        "tokens": tokens,
        "prompt_tokens": sum(row.prompt_tokens or 0 for row in rows) / len(rows),
        "seconds": written - submitted,
        "completions_per_second": len(rows) / (written - submitted),
        "tokens_per_second": tokens / (written - submitted),
        "steady_completions_per_second": len(rows) / (written - first),
        "steady_tokens_per_second": tokens / (written - first),
        "first_admitted_seconds": first - submitted,
        "last_written_seconds": written - last,
        "mean_in_flight": sum(end - start for start, end in spans) / (last - first),
    }


def prompts_of(load: Load) -> list[str]:
    """The prompts of a load, made with its model's tokenizer."""
    return make_prompts(AutoTokenizer.from_pretrained(load.model, local_files_only=True), load)


def registry_of(load: Load) -> str:
    """A registry (TOML) of the one model that is measured."""
    decoding = {"max_new_tokens": load.new_tokens, "temperature": load.temperature, "top_p": load.top_p}
    values = {
        "name": MODEL,
        "source": load.model,
        "device": load.device,
        "dtype": load.dtype,
        "slots": load.concurrency,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    settings = ", ".join(f"{name} = {value}" for name, value in decoding.items())
    return "\n".join(["[[model]]", *lines, "add_special_tokens = false", f"decoding = {{ {settings} }}", ""])
