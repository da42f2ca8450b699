"""Loading a model of the registry."""

import hashlib
import json
import os
import platform
import time
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer

from tasks.errors import ModelError
from tasks.ledger.records import Environment
from tasks.registry import LocalModel
from tasks.states import LoadStage
from worker.backends.chat import ChatRenderer
from worker.backends.device import choose_device, choose_dtype, device_name
from worker.backends.local import LocalBackend
from worker.backends.loop import EngineLoop, start_where_loaded
from worker.backends.protocol import Description, Report
from worker.backends.weights import open_weights
from worker.engine import native
from worker.engine.engine import ContinuousEngine

transformers.utils.logging.disable_progress_bar()

DEFAULT_CONTEXT = 2048


def open_backend(entry: LocalModel, report: Report) -> LocalBackend:
    """A model of our own engine, ready to answer. Raises `ModelError` with one line that says what is wrong."""
    return start_where_loaded(lambda: _load(entry, report))


def _load(entry: LocalModel, report: Report) -> tuple[LocalBackend, EngineLoop]:
    """Load weights and tokenizer, for as many threads as there are cores; never runs code that comes with a model."""
    started = time.monotonic()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    device = choose_device(entry.device)
    dtype = choose_dtype(entry.dtype, device)
    options = {"revision": entry.revision} if entry.revision else {}
    report(LoadStage.READING)
    try:
        tokenizer = AutoTokenizer.from_pretrained(entry.location, trust_remote_code=False, **options)
        model = open_weights(entry.location, dtype=dtype, use_safetensors=True, **options).to(device).eval()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, MemoryError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{entry.name}: cannot load {entry.source}: {first_line}") from error
    report(LoadStage.BUILDING_KERNELS)
    kernels = native.load() if device.type == "cpu" else None
    environment = _environment(entry, device, dtype, threads, model, kernels)
    report(LoadStage.PREPARING)
    renderer = ChatRenderer(tokenizer, entry, add_special_tokens=entry.add_special_tokens)
    engine = ContinuousEngine(
        model,
        tokenizer,
        slots=entry.slots,
        max_context=_context(entry, model),
        add_special_tokens=entry.add_special_tokens,
        deterministic=entry.deterministic,
        native=kernels,
    )
    description = Description(
        environment,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        slots=entry.slots,
        load_seconds=time.monotonic() - started,
    )
    loop = EngineLoop(engine)
    return LocalBackend(loop, renderer, description), loop


def _context(entry: LocalModel, model: Any) -> int:
    built_for = getattr(model.config, "max_position_embeddings", None) or DEFAULT_CONTEXT
    return min(entry.max_context or built_for, built_for)


def _environment(
    entry: LocalModel, device: torch.device, dtype: torch.dtype, threads: int, model: Any, kernels: native.Native | None
) -> Environment:
    facts = {
        "model": entry.name,
        "source": entry.source,
        "revision": entry.revision,
        "parameters": model.num_parameters(),
        "device": str(device),
        "device_name": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "slots": entry.slots,
        "engine": "continuous",
        "kernels": "torch" if kernels is None else "native",
        "deterministic": entry.deterministic,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Environment(digest[:16], facts)
