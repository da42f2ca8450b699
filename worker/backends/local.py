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
from tasks.registry import ModelSpec
from worker.backends.device import choose_device, choose_dtype, device_name
from worker.backends.loaded import LoadedModel
from worker.backends.weights import open_weights
from worker.engine import native
from worker.engine.engine import ContinuousEngine

transformers.utils.logging.disable_progress_bar()

DEFAULT_CONTEXT = 2048


def load(spec: ModelSpec) -> LoadedModel:
    """Load weights and tokenizer, for as many threads as there are cores; never runs code that comes with a model.

    Raises `ModelError` with one line that says what is wrong.
    """
    started = time.monotonic()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    device = choose_device(spec.device)
    dtype = choose_dtype(spec.dtype, device)
    options = {"revision": spec.revision} if spec.revision else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.source, trust_remote_code=False, **options)
        model = open_weights(spec.source, dtype=dtype, use_safetensors=True, **options).to(device).eval()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, MemoryError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{spec.name}: cannot load {spec.source}: {first_line}") from error
    kernels = native.load() if device.type == "cpu" else None
    environment = _environment(spec, device, dtype, threads, model, kernels)
    engine = ContinuousEngine(
        model,
        tokenizer,
        slots=spec.slots,
        max_context=_context(spec, model),
        add_special_tokens=spec.add_special_tokens,
        deterministic=spec.deterministic,
        native=kernels,
    )
    return LoadedModel(engine, environment, str(device), str(dtype).removeprefix("torch."), time.monotonic() - started)


def _context(spec: ModelSpec, model: Any) -> int:
    built_for = getattr(model.config, "max_position_embeddings", None) or DEFAULT_CONTEXT
    return min(spec.max_context or built_for, built_for)


def _environment(
    spec: ModelSpec, device: torch.device, dtype: torch.dtype, threads: int, model: Any, kernels: native.Native | None
) -> Environment:
    facts = {
        "model": spec.name,
        "source": spec.source.rsplit("/", 2)[-1] if spec.source.startswith("/") else spec.source,
        "revision": spec.revision,
        "parameters": model.num_parameters(),
        "template": spec.template,
        "device": str(device),
        "device_name": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "slots": spec.slots,
        "engine": "continuous",
        "kernels": "torch" if kernels is None else "native",
        "deterministic": spec.deterministic,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Environment(digest[:16], facts)
