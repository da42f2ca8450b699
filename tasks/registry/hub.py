"""Models of a hub as far as one can see them without downloading: in the local caches, or by asking the hub."""

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import ModelError, Unavailable
from tasks.registry.inspection import BIN, SAFETENSORS, Format, Inspection, cache_bytes, context_of, text_config

DEFAULT_ENDPOINT = "https://huggingface.co"
HUB_SECONDS = 10.0
OUT_OF_REACH = (
    "{repo} is not in the cache {cache}, and the hub {endpoint} {why}. Check the network, set HF_ENDPOINT to a mirror "
    "that you reach (such as https://hf-mirror.com), or bring the model into that cache and set HF_HUB_OFFLINE=1."
)
OFFLINE = "is not asked, because HF_HUB_OFFLINE is set (unset it to download)"
UNKNOWN = (
    "the hub {endpoint} knows no {repo} that may be read; correct the source, or set HF_TOKEN where the model is "
    "private or its licence must be accepted first."
)


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def is_offline() -> bool:
    told = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return told.upper() in ("1", "ON", "YES", "TRUE")


def hub_cache() -> Path:
    """Where models of the hub lie, as its own package decides."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{home}/huggingface").expanduser() / "hub"


def cached(repo: str, revision: str | None) -> Path | None:
    """The folder of a model that was downloaded before; None where there is none."""
    place = hub_cache() / f"models--{repo.replace('/', '--')}"
    name = revision or "main"
    try:
        commit = (place / "refs" / name).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = name
    folder = place / "snapshots" / commit
    return folder if folder.is_dir() else None


def modelscope_cached(repo: str, revision: str | None) -> Path | None:
    """The folder of a model of ModelScope's, in its package's present layout or one of the earlier ones."""
    base = Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()
    owner, _, name = repo.partition("/")
    snapshots = base / "models" / f"{owner}--{name}" / "snapshots"
    plain = Path("models") / owner / name.replace(".", "___")
    names = [revision] if revision else ["master", "main"]
    places = [*(snapshots / each for each in names), base / plain, base / "hub" / plain, base / "hub" / owner / name]
    return next((place for place in places if place.is_dir()), None)


def ask(repo: str, revision: str | None, gguf_file: str | None) -> Inspection:
    """What the hub says of a model. Raises `ModelError`, or `Unavailable` where it does not answer."""
    at = urllib.parse.quote(revision or "main", safe="")
    facts = _get(repo, f"/api/models/{repo}/revision/{at}?blobs=true")
    sizes = {str(each["rfilename"]): int(each.get("size") or 0) for each in facts.get("siblings") or ()}
    gguf = facts.get("gguf") or {}
    if gguf_file is not None:
        if gguf_file not in sizes:
            raise ModelError(f"{repo} has no file {gguf_file}; it has {_some(sizes, '.gguf')}.")
        return Inspection(
            format=Format.GGUF,
            architecture=str(gguf.get("architecture") or "unknown"),
            parameters=int(gguf.get("total") or 0),
            weights_bytes=sizes[gguf_file],
            context=int(gguf.get("context_length") or 0) or None,
            chat_template=bool(gguf.get("chat_template")),
            cache_bytes=0,
        )
    if "config.json" not in sizes:
        hint = f" It has GGUF files; say which with --gguf-file: {_some(sizes, '.gguf')}." if gguf else ""
        raise ModelError(f"{repo} has no config.json, so it is no model of transformers.{hint}")
    config = _get(repo, f"/{repo}/resolve/{at}/config.json")
    safe = sum(size for name, size in sizes.items() if SAFETENSORS.fullmatch(name))
    weights = safe or sum(size for name, size in sizes.items() if BIN.fullmatch(name))
    if not weights:
        raise ModelError(f"{repo} has neither model.safetensors nor pytorch_model.bin; choose another model.")
    width = 2 if str(config.get("torch_dtype") or config.get("dtype")).endswith("16") else 4
    counted = (facts.get("safetensors") or {}).get("total")
    text = text_config(config)
    shown = (facts.get("config") or {}).get("tokenizer_config") or {}
    return Inspection(
        format=Format.SAFETENSORS if safe else Format.BIN,
        architecture=str((config.get("architectures") or [config.get("model_type") or "unknown"])[0]),
        parameters=int(counted or weights // width),
        weights_bytes=weights,
        context=context_of(text),
        chat_template=bool(shown.get("chat_template")) or "chat_template.jinja" in sizes,
        cache_bytes=cache_bytes(text),
    )


def _some(names: Mapping[str, int], end: str) -> str:
    found = sorted(name for name in names if name.endswith(end))
    return ", ".join(found[:6]) or "none"


def _get(repo: str, path: str) -> dict[str, Any]:
    if is_offline():
        raise Unavailable(OUT_OF_REACH.format(repo=repo, cache=hub_cache(), endpoint=endpoint(), why=OFFLINE))
    request = urllib.request.Request(endpoint() + path, headers={"User-Agent": "touchstone"})
    if token := os.environ.get("HF_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=HUB_SECONDS) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            raise ModelError(UNKNOWN.format(endpoint=endpoint(), repo=repo)) from None
        why = f"answered with status {error.code}"
        raise Unavailable(OUT_OF_REACH.format(repo=repo, cache=hub_cache(), endpoint=endpoint(), why=why)) from None
    except (OSError, ValueError) as error:
        why = f"does not answer ({re.sub(r'[<>]', '', str(error))})"
        raise Unavailable(OUT_OF_REACH.format(repo=repo, cache=hub_cache(), endpoint=endpoint(), why=why)) from None
    if not isinstance(answer, dict):
        raise ModelError(f"{endpoint()} answered something else than a hub does; correct HF_ENDPOINT.")
    return answer
