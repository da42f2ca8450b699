"""What a server says of itself before anything is asked of it: its models, what it is and its version."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tasks.errors import ModelError
from tasks.registry import OpenAIModel
from worker.backends.openai.client import Client
from worker.backends.openai.problems import Refused, TryAgain

TRIES = 3
INSPECT_SECONDS = 15.0  # for all tries
ABOUT_SECONDS = 4.0
TRY_AGAIN_SECONDS = 1.0
VERSIONS = (("/version", "version"), ("/props", "build_info"), ("/api/version", "version"))
NAMES = {"llama.cpp": "llamacpp"}  # what servers call themselves in a header, as they call themselves in /v1/models
MAX_SHOWN = 20  # models in an error
MAX_FACT = 120  # characters
NOT_THERE = "{}: {} is not there: {} Start that server, or correct base_url."


@dataclass(frozen=True)
class Inspection:
    """``models`` are those that the server lists, by id with what it says of each; None where it lists none.

    ``dialect`` is what it calls itself, such as ``vllm``, or "".
    """

    models: Mapping[str, Mapping[str, Any]] | None
    dialect: str = ""
    version: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def model(self, entry: OpenAIModel) -> str:
        """The model's name there. Raises `ModelError` that names what there is."""
        wanted = entry.model or entry.name
        if self.models is None:
            return wanted
        if entry.serve and entry.model is None and len(self.models) == 1:
            return next(iter(self.models))
        for name in (wanted, f"{wanted}:latest", f"models/{wanted}"):
            if name in self.models:
                return name
        there = ", ".join(list(self.models)[:MAX_SHOWN]) or "none"
        raise ModelError(f"{entry.name}: the server has no model {wanted!r}; it has {there}. Correct model.")


async def inspect(client: Client, entry: OpenAIModel) -> Inspection:
    """One look at a server that should be there. Raises `ModelError` with its address and what to do."""
    try:
        async with asyncio.timeout(INSPECT_SECONDS):
            status, headers, body = await _models(client, entry)
    except TimeoutError:
        raise ModelError(NOT_THERE.format(entry.name, client.base_url, "it does not answer in time.")) from None
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        key = f"the key in {entry.key_env}" if entry.key_env else "to answer without a key; name its variable: key_env"
        raise ModelError(f"{entry.name}: {client.base_url} refuses {key} ({status}: {client.told(body)}).")
    models = _listed(body) if status == HTTPStatus.OK else None
    dialect = _dialect(headers, models)
    version: str | None = None
    facts: Mapping[str, Any] = {}
    with contextlib.suppress(TimeoutError):  # it is no more than nice to know
        async with asyncio.timeout(ABOUT_SECONDS):
            version, facts = await _about(client)
    return Inspection(models, dialect, version or (headers.get("server") or "")[:MAX_FACT] or None, facts)


async def is_healthy(client: Client) -> bool:
    """Whether a server that is starting answers by now. Raises `ModelError` where it never will."""
    try:
        status, _, _ = await client.look(root(client.base_url) + "/health")
        if status == HTTPStatus.NOT_FOUND:
            status, _, _ = await client.look(client.base_url + "/models")
    except TryAgain:
        return False
    except Refused as error:
        raise ModelError(error.line) from error
    return status == HTTPStatus.OK


def root(base_url: str) -> str:
    """Where a server keeps what is not part of OpenAI's interface."""
    return base_url.removesuffix("/v1")


async def _models(client: Client, entry: OpenAIModel) -> tuple[int, Mapping[str, str], bytes]:
    for tries_left in reversed(range(TRIES)):
        try:
            status, headers, body = await client.look(client.base_url + "/models")
            if status < 500:
                return status, headers, body
            line = f"it answers {status}: {client.told(body)}"
        except Refused as error:
            raise ModelError(f"{entry.name}: {client.base_url}: {error.line}") from error
        except TryAgain as error:
            line = error.line
        if tries_left:
            await asyncio.sleep(TRY_AGAIN_SECONDS)
    raise ModelError(NOT_THERE.format(entry.name, client.base_url, line))


def _listed(body: bytes) -> dict[str, Mapping[str, Any]] | None:
    said = _object(body)
    listed = said.get("data")
    if not isinstance(listed, list):
        return None
    return {one["id"]: one for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str)}


def _dialect(headers: Mapping[str, str], models: Mapping[str, Mapping[str, Any]] | None) -> str:
    named = headers.get("server", "").partition("/")[0].strip().lower()
    owners = {str(one.get("owned_by", "")).lower() for one in (models or {}).values()}
    return NAMES.get(named) or (owners.pop() if len(owners) == 1 else "")


async def _about(client: Client) -> tuple[str | None, Mapping[str, Any]]:
    """Version and what else a server tells of its model, where it tells anything."""
    for path, name in VERSIONS:
        try:
            status, _, body = await client.look(root(client.base_url) + path)
        except (TryAgain, Refused):
            continue
        said = _object(body) if status == HTTPStatus.OK else {}
        if isinstance(version := said.get(name), str):
            settings = said.get("default_generation_settings")
            context = settings.get("n_ctx") if isinstance(settings, dict) else None
            facts = {"context": context, "chat_template": said.get("chat_template")}
            return version[:MAX_FACT], {key: value for key, value in facts.items() if value}
    return None, {}


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
