"""``models``: the models that you have, to list, add, check and remove."""

import ipaddress
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tasks.commands.group import main
from tasks.errors import ConfigurationError, InvalidInput, TouchstoneError
from tasks.host.memory import available_bytes
from tasks.ledger import Ledger
from tasks.registry import Registry
from tasks.registry.editing import add_model, remove_model
from tasks.registry.entry import LANGUAGES, MODELSCOPE
from tasks.registry.hub import ask, cached, is_offline, modelscope_cached
from tasks.registry.inspection import DEFAULT_CONTEXT, Inspection, inspect
from tasks.settings import Settings

SERVER_SECONDS = 10.0
SLOTS = 16
CHAT_DECODING = {"temperature": 0.7, "top_p": 0.9}  # at 1.0 a small chat model babbles
NUMBER_BYTES = {"bfloat16": 2, "float32": 4}
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def of_registry(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option that names the registry's file."""
    return click.option("--models", "file", type=click.Path(path_type=Path), help="Registry file [./models.toml].")(
        command
    )


@main.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that you have; add, check or remove one."""
    if context.invoked_subcommand is None:
        list_models(None)


@models.command("list")
@of_registry
def list_command(file: Path | None) -> None:
    """List the registry, and which models have a worker."""
    list_models(file)


def list_models(file: Path | None) -> None:
    ledger = Ledger(Settings.from_environment())
    for entry in Registry.load(_registry_file(file)).models.values():
        ready = ledger.workers.ready(entry.name)
        labels = " · ".join(entry.text("label", language) for language in LANGUAGES)
        click.echo(f"{entry.name:24} {entry.backend:8} {entry.device:8} {ready} ready  {labels}")


@models.command()
@click.argument("source")
@click.option("--name", help="Its name here [made from SOURCE].")
@click.option("--gguf-file", help="The GGUF file within SOURCE, where that is a folder or hub id.")
@click.option("--revision", help="Branch, tag or commit, where SOURCE is a hub id.")
@click.option("--adapter", help="Folder or hub id of a PEFT adapter, such as LoRA's.")
@click.option("--model", help="Its name on the server, where SOURCE is an address such as http://127.0.0.1:8080/v1.")
@click.option("--key-env", help="Name of the variable that holds the server's key.")
@of_registry
def add(source: str, name: str | None, file: Path | None, **options: str | None) -> None:
    """Look at SOURCE (a folder, a .gguf file, a hub id, modelscope:OWNER/NAME or a server's address) and add it."""
    path = _registry_file(file)
    given = {key: value for key, value in options.items() if value is not None}
    is_server = source.startswith(("http://", "https://"))
    wrong = given.keys() & ({"gguf_file", "revision", "adapter"} if is_server else {"model", "key_env"})
    if wrong:
        option = f"--{sorted(wrong)[0].replace('_', '-')}"
        raise InvalidInput(f"{option} does not go with {source}; leave it out, or see 'models add --help'.")
    found = _server(source, given) if is_server else _local(source, given, path.resolve().parent)
    block = {"name": name or _name(str(found.get("model") or given.get("gguf_file") or source)), **found}
    _refuse_twice(path, block)
    seen = None if is_server else _look(source, given.get("revision"), given.get("gguf_file"))
    if decoding := _decoding(seen):
        block["decoding"] = decoding
        click.echo(f"{'decoding':14} {', '.join(f'{name} {value:g}' for name, value in decoding.items())}")
    add_model(path, block)
    click.echo(f"{block['name']} is added to {path}; 'models check {block['name']}' loads it and asks it something.")


@models.command()
@click.argument("name")
@click.option("--prompt", default="What is the capital of France?", show_default=True)
@of_registry
def check(name: str, prompt: str, file: Path | None) -> None:
    """Load the model NAME, put one prompt to it, and show what came of it."""
    path = _registry_file(file)
    Registry.load(path).get(name)
    environment = {**os.environ, "TOUCHSTONE_MODELS": str(path.absolute())}
    command = [sys.executable, "-m", "worker.check", "--model", name, "--prompt", prompt]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)


@models.command()
@click.argument("name")
@of_registry
def remove(name: str, file: Path | None) -> None:
    """Take the model NAME out of the registry; its answers and its files stay."""
    path = _registry_file(file)
    remove_model(path, name)
    click.echo(f"{name} is removed from {path}; its answers and the model's own files stay.")


def _registry_file(file: Path | None) -> Path:
    return file or Settings.from_environment().models


def _name(source: str) -> str:
    """A name that the registry takes, from a path, hub id or address."""
    last = source.removesuffix(".gguf").rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].lower()
    name = re.sub(r"[^a-z0-9._-]+", "-", last).strip("-._")[:63]
    if not name:
        raise InvalidInput(f"No name can be made from {source!r}; give one with --name.", "name")
    return name


def _refuse_twice(path: Path, block: dict[str, Any]) -> None:
    if not path.exists():
        return
    entries = Registry.load(path).models
    if block["name"] in entries:
        raise ConfigurationError(f"{path} has a model {block['name']!r} already; give another name with --name.")
    for entry in entries.values():
        same = entry.snapshot()
        if all(same.get(key) == value for key, value in block.items() if key != "name"):
            raise ConfigurationError(f"{path} has this model already, as {entry.name!r}; use that, or remove it first.")


def _is_path(source: str) -> bool:
    return Path(source).expanduser().exists() or source.endswith(".gguf") or not HUB_ID.fullmatch(source)


def _local(source: str, given: dict[str, str], folder: Path) -> dict[str, Any]:
    """The keys of a model of our own engine. ``folder`` is the registry's.

    A path within that is written with a dot before it: without, it would be a hub id where the folder vanished.
    """
    if not source.startswith(MODELSCOPE) and _is_path(source):
        place = Path(source).expanduser().resolve()
        source = f"./{place.relative_to(folder)}" if place.is_relative_to(folder) else str(place)
    return {"source": source, **given}


def _decoding(seen: Inspection | None) -> dict[str, float]:
    """Settings to begin with: those that the model's makers recommend, else mild ones for a model that chats."""
    if seen is None:
        return {}
    return dict(seen.decoding) or (CHAT_DECODING if seen.chat_template else {})


def _look(source: str, revision: str | None, gguf_file: str | None) -> Inspection | None:
    """Show what a model of our own engine is; None where it is not here yet.

    Raises `ModelError` for one that is not whole.
    """
    if source.startswith(MODELSCOPE):
        found = modelscope_cached(source.removeprefix(MODELSCOPE), revision)
        if found is None:
            click.echo(f"{source} is not here yet: its worker downloads it when it starts.")
            return None
        seen = inspect(found, gguf_file)
    elif _is_path(source):
        seen = inspect(Path(source).expanduser().resolve(), gguf_file)
    else:
        seen = _from_hub(source, revision, gguf_file)
    _show(seen)
    return seen


def _from_hub(repo: str, revision: str | None, gguf_file: str | None) -> Inspection:
    found = cached(repo, revision)
    if found is not None and is_offline():
        return inspect(found, gguf_file)
    try:
        return ask(repo, revision, gguf_file)
    except TouchstoneError:
        if found is None:
            raise
        return inspect(found, gguf_file)


def _show(found: Inspection) -> None:
    context = found.context or DEFAULT_CONTEXT
    there = available_bytes()
    needed = {name: found.memory_needed(width, SLOTS, context) for name, width in NUMBER_BYTES.items()}
    rows = {
        "architecture": found.architecture,
        "format": str(found.format),
        "parameters": found.size,
        "files": f"{found.weights_bytes / 1e9:.2f} GB",
        "context": f"{found.context} tokens" if found.context else f"not said; {DEFAULT_CONTEXT} tokens are used",
        "chat template": "yes" if found.chat_template else "no (prompts are put as plain text)",
        "memory": ", ".join(f"about {size / 1e9:.1f} GB as {name}" for name, size in needed.items()),
        "fits": _fits(needed, there),
    }
    for label, text in rows.items():
        click.echo(f"{label:14} {text}")


def _fits(needed: dict[str, int], there: int | None) -> str:
    if there is None:
        return "unknown: this system does not say how much memory is free"
    free = f"({there / 1e9:.1f} GB are free)"
    fitting = [name for name, size in needed.items() if size <= there]
    if not fitting:
        return f"no {free}; use a smaller model, or run it on another machine"
    return f"yes {free}" if len(fitting) == len(needed) else f"as {' or '.join(fitting)} only {free}"


def _server(address: str, given: dict[str, str]) -> dict[str, Any]:
    """The keys of a model of a server, which is asked what it has."""
    base = address.rstrip("/")
    offered = _offered(base, os.environ.get(given.get("key_env", ""), ""))
    if "model" not in given:
        if not offered or len(offered) > 1:
            shown = f"it has {', '.join(offered[:8])}" if offered else "it does not tell which it has"
            raise InvalidInput(f"{base}: say which of its models with --model; {shown}.", "model")
        given = {**given, "model": offered[0]}
    elif offered and given["model"] not in offered:
        raise InvalidInput(f"{base} has no model {given['model']!r}; it has {', '.join(offered[:8])}.", "model")
    if not offered:
        click.echo(f"{base} does not tell which models it has; it is added as it is.")
    made: dict[str, Any] = {"backend": "openai", "base_url": base, **given}
    return made | ({"private": True} if _is_private(base) else {})


def _offered(base: str, key: str) -> list[str]:
    """Names of a server's models; none where it does not say."""
    request = urllib.request.Request(f"{base}/models", headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=SERVER_SECONDS) as response:
            return [str(each["id"]) for each in json.load(response)["data"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _is_private(address: str) -> bool:
    host = urllib.parse.urlsplit(address).hostname or ""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host.endswith((".local", ".internal", ".lan"))
    return found.is_private and not found.is_loopback
