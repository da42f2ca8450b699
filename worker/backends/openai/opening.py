"""Makes a server ready to answer: finds the key, starts what is to be started, looks at what is there."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tasks.errors import ModelError
from tasks.registry import OpenAIModel
from tasks.states import LoadStage
from worker.backends.answer_keys import AnswerKeys
from worker.backends.openai.attempts import Server
from worker.backends.openai.backend import OpenAIBackend
from worker.backends.openai.client import Client
from worker.backends.openai.environment import environment_of
from worker.backends.openai.inspection import Inspection, inspect, is_healthy
from worker.backends.openai.liveness import Liveness
from worker.backends.openai.loop_thread import LoopThread
from worker.backends.openai.parameters import Parameters
from worker.backends.openai.served import ServedProcess, Watchers
from worker.backends.openai.tokens import token_counter
from worker.backends.protocol import Description, Report

KEY = re.compile(r"[!-~]+")  # what a header can carry
NO_KEY = "{}: the variable {} is not set, or holds no key; set it where the worker is started."


def open_backend(entry: OpenAIModel, report: Report) -> OpenAIBackend:
    """A server's model, ready to answer. Raises `ModelError` with one line that says what is wrong."""
    loop = LoopThread(entry.name)
    try:
        return loop.run(_open(entry, report, loop))
    except BaseException:
        loop.stop()
        raise


async def _open(entry: OpenAIModel, report: Report, loop: LoopThread) -> OpenAIBackend:
    started = time.monotonic()
    counter, liveness = token_counter(entry), Liveness(entry.timeout)
    client = Client(
        base_url(entry),
        key=key_of(entry, os.environ),
        private=entry.private,
        connections=entry.concurrency,
        timeout=entry.timeout,
        on_bytes=liveness.sign,
    )
    process = _served(entry, client, liveness) if entry.serve else None
    try:
        if process is not None:
            report(LoadStage.STARTING_SERVER)
            await process.start()
        else:
            report(LoadStage.PREPARING)
        found = await inspect(client, entry)
        parameters = Parameters(found.model(entry), entry.api, found.dialect)
        server = Server(client, parameters, liveness, counter, process)
        description = _description(entry, found, parameters.model, started)
        return OpenAIBackend(server, description, loop, _keys(entry, found, parameters.model))
    except BaseException:
        if process is not None:
            await process.close()
        await client.close()
        raise


def base_url(entry: OpenAIModel) -> str:
    """Where requests go, without the last part of their path; an address without a path means ``/v1``."""
    url = entry.base_url or "http://127.0.0.1"
    return url if urlsplit(url).path else f"{url}/v1"


def key_of(entry: OpenAIModel, environment: Mapping[str, str]) -> str | None:
    """The key that the entry's variable holds. Raises `ModelError` that names the variable and nothing else."""
    if entry.key_env is None:
        return None
    key = environment.get(entry.key_env, "").strip()
    if not KEY.fullmatch(key):
        raise ModelError(NO_KEY.format(entry.name, entry.key_env))
    return key


def _served(entry: OpenAIModel, client: Client, liveness: Liveness) -> ServedProcess:
    def moved(url: str) -> None:
        client.base_url = f"{url}/v1"

    return ServedProcess(entry, Watchers(moved, lambda: is_healthy(client), liveness.sign, client.hide))


def _keys(entry: OpenAIModel, found: Inspection, model: str) -> AnswerKeys | None:
    """Only the owner of an entry can say that a server's model is still the same; at another address it is another."""
    if entry.revision is None:
        return None
    facts = {
        "backend": entry.backend.value,
        "server": entry.base_url,
        "model": model,
        "revision": entry.revision,
        "source": entry.source,
        "api": entry.api.value,
        "serve": entry.serve,
        "server_version": found.version,
        "dialect": found.dialect,
    }
    return AnswerKeys(facts)


def _description(entry: OpenAIModel, found: Inspection, model: str, started: float) -> Description:
    facts = {
        "model": entry.name,
        "backend": entry.backend.value,
        "remote": True,
        "server": entry.base_url,
        "server_model": model,
        "server_version": found.version,
        "dialect": found.dialect or None,
        "api": entry.api.value,
        "source": entry.source,
        "serve": list(entry.serve) or None,
        "device": _device(entry),
        "threads": len(os.sched_getaffinity(0)) if entry.serve else None,
        "concurrency": entry.concurrency,
    }
    facts = {name: value for name, value in facts.items() if value is not None}
    return Description(
        environment_of(facts),
        device=_device(entry),
        dtype="",
        slots=entry.concurrency,
        load_seconds=time.monotonic() - started,
        facts=facts | dict(found.facts) | _listed_facts(found, model) | ({"price": entry.price} if entry.price else {}),
    )


def _device(entry: OpenAIModel) -> str:
    return entry.device if entry.serve else "remote"


def _listed_facts(found: Inspection, model: str) -> dict[str, Any]:
    """What servers say of a model beside its name: vLLM its context, llama.cpp its size."""
    said = (found.models or {}).get(model, {})
    meta = said.get("meta")
    known = {"context": said.get("max_model_len")}
    if isinstance(meta, dict):
        known |= {"trained_context": meta.get("n_ctx_train"), "parameters": meta.get("n_params")}
    return {name: value for name, value in known.items() if isinstance(value, int)}
