"""Loading a model of the registry, from its entry to a backend that has answered once."""

import hashlib
import json
import logging
import os
import platform
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer

from tasks.errors import ModelError
from tasks.ledger.records import Environment
from tasks.registry import LocalModel
from tasks.registry.inspection import DEFAULT_CONTEXT, Inspection, context_of, inspect, text_config
from tasks.sampling import Sampling
from tasks.states import LoadStage
from worker.backends.adapters import merge_adapter
from worker.backends.chat import ChatRenderer
from worker.backends.device import choose_device, choose_dtype, device_name
from worker.backends.failures import explain
from worker.backends.gguf import converted
from worker.backends.identity import Weights, find_keys, kernel_class
from worker.backends.local import LocalBackend
from worker.backends.loop import EngineLoop, start_where_loaded
from worker.backends.memory import check_memory, taken
from worker.backends.protocol import Description, Report
from worker.backends.source import Source, locate, locate_adapter
from worker.backends.stops import stop_tokens
from worker.backends.weights import check_numbers, load_weights
from worker.engine import native
from worker.engine.choice import make_engine
from worker.engine.protocol import Engine, Request, Result

logger = logging.getLogger(__name__)
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()  # what it warns of, such as missing weights, is an error here

BUILD_SECONDS = 2.0  # kernels that are there load in less
WARM_UP_PROMPT, WARM_UP_TOKENS = "Hello", 4


@dataclass(frozen=True)
class Files:
    """A model's files, ready to be read: ``folder`` holds safetensors or ``.bin`` weights and the tokenizer."""

    source: Source
    inspection: Inspection
    folder: Path
    adapter: Path | None
    memory_needed: int
    weights: Weights


def open_backend(entry: LocalModel, report: Report) -> LocalBackend:
    """A model of our own engine, ready to answer. Raises `ModelError` with one line that says what is wrong."""
    try:
        return start_where_loaded(lambda: _load(entry, report))
    except Exception as error:
        if not isinstance(error, ModelError):
            logger.debug("%s cannot be loaded", entry.name, exc_info=error)
        said = explain(error).removeprefix(f"{entry.name}: ")
        where = "" if entry.source in said or entry.location in said else f" {entry.source}"
        raise ModelError(f"{entry.name}: cannot load{where}: {said}.") from error


def _load(entry: LocalModel, report: Report) -> tuple[LocalBackend, EngineLoop]:
    """Load weights and tokenizer, for as many threads as there are cores; never runs code that comes with a model."""
    started = time.monotonic()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    device = choose_device(entry.device)
    dtype = choose_dtype(entry.dtype, device)
    files = _prepare_files(entry, device, dtype, report)
    report(LoadStage.READING)
    tokenizer = _open_tokenizer(files.folder)
    renderer = ChatRenderer(tokenizer, entry, add_special_tokens=entry.add_special_tokens)
    model = _open_model(files, device, dtype)
    stops = stop_tokens(model, tokenizer)
    context = _context(entry, model)
    kernels = _load_kernels(report) if device.type == "cpu" else None
    report(LoadStage.PREPARING)
    parameters = model.num_parameters()
    held = [model]
    del model  # or there would be two for a while, should it have to be loaded again
    choice = make_engine(
        held.pop(),
        tokenizer,
        slots=entry.slots,
        max_context=context,
        add_special_tokens=entry.add_special_tokens,
        stop_tokens=stops,
        deterministic=entry.deterministic,
        native=kernels,
        reload=lambda: _open_model(files, device, dtype),
    )
    report(LoadStage.WARMING_UP)
    warm_up(choice.engine, tokenizer)
    made_with = {"parameters": parameters, "format": str(files.inspection.format), "commit": files.source.commit}
    environment = _environment(entry, device, dtype, threads, made_with | {"engine": str(choice.kind)}, kernels)
    description = Description(
        environment,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        slots=entry.slots,
        load_seconds=time.monotonic() - started,
        facts=_facts(files, parameters, context, renderer.has_template, device)
        | {"engine": str(choice.kind), "engine_reason": choice.reason},
    )
    loop = EngineLoop(choice.engine)
    backend = LocalBackend(loop, renderer, description)
    facts = {"dtype": description.dtype, "engine": str(choice.kind)} | kernel_class(device, kernels)
    if entry.deterministic:  # then its bits are the same again for as long as these are
        facts |= {"threads": threads, "slots": entry.slots}
    find_keys(backend, files.weights, facts, context)
    return backend, loop


def _prepare_files(entry: LocalModel, device: torch.device, dtype: torch.dtype, report: Report) -> Files:
    """Get the files here, look whether they are whole and fit into memory, and convert those that want it."""
    source = locate(entry, report)
    adapter = locate_adapter(entry, report)
    inspection = inspect(source.folder, source.gguf_file)
    built_for = inspection.context or entry.max_context or DEFAULT_CONTEXT
    context = min(entry.max_context or built_for, built_for)
    weights = Weights.of(entry, source, adapter)
    needed = check_memory(inspection, dtype, device, entry.slots, context)
    folder = source.folder
    if source.gguf_file is not None:
        file = source.folder / source.gguf_file
        folder = converted(file, inspection, str(dtype).removeprefix("torch."), report)
    return Files(source, inspection, folder, adapter, needed, weights)


def _open_tokenizer(folder: Path) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        known = len(tokenizer.get_vocab()) - len(tokenizer.get_added_vocab())
    except Exception as error:  # of as many kinds as there are tokenizers
        raise ModelError(
            f"its tokenizer cannot be read ({explain(error)}); download or copy the tokenizer's files again."
        ) from error
    if known <= 0:
        raise ModelError(f"the tokenizer in {folder} knows no token; download or copy the tokenizer's files again.")
    return tokenizer


def _open_model(files: Files, device: torch.device, dtype: torch.dtype) -> Any:
    model = load_weights(files.folder, dtype)
    if files.adapter is not None:
        model = merge_adapter(model, files.adapter)
    model = model.to(device)
    check_numbers(model)
    return model


def _load_kernels(report: Report) -> native.Native | None:
    timer = threading.Timer(BUILD_SECONDS, report, [LoadStage.BUILDING_KERNELS])
    timer.daemon = True
    timer.start()
    try:
        return native.load()
    finally:
        timer.cancel()


def warm_up(engine: Engine, tokenizer: Any) -> None:
    """Answer once, so that the first person does not wait for it. Raises `ModelError` where there is no answer."""
    tokens = tokenizer(WARM_UP_PROMPT, add_special_tokens=False)["input_ids"][:1] or [0]
    results: list[Result] = []
    sampling = Sampling(max_new_tokens=WARM_UP_TOKENS, temperature=0.0)
    engine.add(Request("warm-up", tuple(tokens), sampling, streams=False))
    while engine.active:
        engine.step(lambda event: results.append(event) if isinstance(event, Result) else None)
    if results[0].error is not None:
        raise ModelError(f"it does not answer: {results[0].error}")


def _context(entry: LocalModel, model: Any) -> int:
    """Tokens of prompt and completion. Recurrent models are built for any number; theirs is the entry's to say."""
    built_for = context_of(text_config(model.config.to_dict()))
    if built_for is None:
        return entry.max_context or DEFAULT_CONTEXT
    return min(entry.max_context or built_for, built_for)


def _facts(files: Files, parameters: int, context: int, chat_template: bool, device: torch.device) -> dict[str, Any]:
    """What the model's card shows. Sizes are bytes."""
    return {
        "architecture": files.inspection.architecture,
        "parameters": parameters,
        "context": context,
        "format": str(files.inspection.format),
        "weights_bytes": files.inspection.weights_bytes,
        "chat_template": chat_template,
        "memory_needed": files.memory_needed,
        "memory": taken(device),
        "commit": files.source.commit,
        "adapter": files.adapter is not None,
    }


def _environment(
    entry: LocalModel,
    device: torch.device,
    dtype: torch.dtype,
    threads: int,
    made_with: dict[str, Any],
    kernels: native.Native | None,
) -> Environment:
    facts = {
        "model": entry.name,
        "source": entry.source,
        "revision": entry.revision,
        "adapter": entry.adapter,
        **made_with,
        "device": str(device),
        "device_name": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "slots": entry.slots,
        "kernels": "torch" if kernels is None else "native",
        "deterministic": entry.deterministic,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Environment(digest[:16], facts)
