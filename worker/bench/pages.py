"""How long the web takes to answer, asked over HTTP as a browser would."""

import statistics
import time
import urllib.request

from tasks.host.redis_server import free_port
from tasks.ledger import Ledger
from tasks.settings import Settings
from worker.bench.processes import running, wait_for_web

TIMES = 11


def page_times(settings: Settings, ledger: Ledger, run_id: str) -> dict[str, dict[str, float]]:
    """Milliseconds of each page for a run: the first answer, then median and longest of the following."""
    run = ledger.runs.get(run_id)
    base = f"http://127.0.0.1:{(port := free_port())}"
    paths = {
        "arena": "/",
        "batches": "/batches",
        "models": "/models",
        "benchmark": "/benchmark",
        "run": f"/runs/{run_id}",
        "run, last page": f"/runs/{run_id}?page={run.prompts}",
        "report": f"/report/{run_id}",
        "api run": f"/api/runs/{run_id}",
        "api completions": f"/api/runs/{run_id}/completions",
    }
    with running(settings, [["tasks", "web", "--port", str(port)]]):
        wait_for_web(base)
        return {name: _times(base + path) for name, path in paths.items()}


def _times(url: str) -> dict[str, float]:
    taken = [_milliseconds(url) for _ in range(TIMES)]
    following = taken[1:]
    values = {"first_ms": taken[0], "median_ms": statistics.median(following), "longest_ms": max(following)}
    return {name: round(value, 1) for name, value in values.items()}


def _milliseconds(url: str) -> float:
    started = time.monotonic()
    with urllib.request.urlopen(url, timeout=120) as response:
        response.read()
    return 1000 * (time.monotonic() - started)
