"""From a model's entry to files on this machine: a path, a hub's cache, or a download."""

import importlib
import logging
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from tasks.errors import ModelError
from tasks.registry import LocalModel
from tasks.registry.entry import MODELSCOPE
from tasks.registry.hub import HUB_SECONDS, OFFLINE, OUT_OF_REACH, UNKNOWN, cached, endpoint, hub_cache, is_offline
from tasks.registry.inspection import BIN, BIN_INDEX, SAFETENSORS, SAFETENSORS_INDEX, inspect
from tasks.states import LoadStage
from worker.backends.protocol import Report

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
DOWNLOADS = 4  # at once
SMALL_FILES = re.compile(r"[^/]+\.(json|jinja|txt|model|tiktoken|v3)")  # configs and tokenizers, beside the weights
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
NO_MODELSCOPE = (
    "a source of ModelScope needs its own package, which is not installed here; run "
    "'.venv/bin/python -m pip install modelscope', or give the folder of a model that was downloaded before."
)


@dataclass(frozen=True)
class Source:
    """Where a model lies: a folder, or a file within it. ``commit`` is that of the hub's snapshot, if it is one."""

    folder: Path
    gguf_file: str | None = None
    commit: str | None = None


def locate(entry: LocalModel, report: Report) -> Source:
    """The files of an entry's model, downloaded if need be. Raises `ModelError` where they cannot be had."""
    location = entry.location
    if location.endswith(".gguf"):
        return Source(Path(location).parent, Path(location).name)
    only = () if entry.gguf_file is None else (entry.gguf_file,)
    folder, commit = _folder(location, entry.revision, only, report)
    return Source(folder, entry.gguf_file, commit)


def locate_adapter(entry: LocalModel, report: Report) -> Path | None:
    """The folder of an entry's adapter; None for an entry without one."""
    location = entry.adapter_location
    if location is None:
        return None
    folder, _ = _folder(location, None, ADAPTER_FILES, report)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"adapter {folder} has no adapter_config.json; give the folder or hub id of a PEFT adapter.")
    return folder


def needed_files(names: Sequence[str]) -> list[str]:
    """Of a repository's files those that a model needs: its weights once, and nothing of other frameworks."""
    safe = [name for name in names if SAFETENSORS.fullmatch(name) or name == SAFETENSORS_INDEX]
    weights = safe or [name for name in names if BIN.fullmatch(name) or name == BIN_INDEX]
    small = [name for name in names if SMALL_FILES.fullmatch(name) and not name.endswith(".index.json")]
    return [*small, *weights]


def _folder(location: str, revision: str | None, only: tuple[str, ...], report: Report) -> tuple[Path, str | None]:
    if location.startswith(MODELSCOPE):
        return _from_modelscope(location.removeprefix(MODELSCOPE), revision, only, report), None
    if Path(location).is_absolute():
        if not Path(location).exists():
            raise ModelError(f"there is no {location}; correct the path in models.toml, or put the model back there.")
        return Path(location), None
    return _from_hub(location, revision, only, report)


def _from_hub(repo: str, revision: str | None, only: tuple[str, ...], report: Report) -> tuple[Path, str]:
    """The snapshot's folder and its commit; brought up to date where the hub answers, else as it lies in the cache."""
    before = cached(repo, revision)
    if is_offline():
        if before is None:
            raise _out_of_reach(repo, OFFLINE)
        return before, before.name
    try:
        info = HfApi(endpoint()).model_info(repo, revision=revision, timeout=HUB_SECONDS, files_metadata=True)
    except RevisionNotFoundError:
        raise ModelError(f"{repo} has no revision {revision!r}; give a branch, tag or commit that it has.") from None
    except HFValidationError:
        raise ModelError(f"{repo!r} is neither a path nor a hub id such as owner/name; correct source.") from None
    except Exception as error:  # of whatever library speaks HTTP, and of whatever stands in between
        if before is not None:
            logger.warning("%s is taken from the cache: the hub did not answer (%s)", repo, type(error).__name__)
            return before, before.name
        if isinstance(error, RepositoryNotFoundError | GatedRepoError):
            raise ModelError(UNKNOWN.format(endpoint=endpoint(), repo=repo)) from None
        raise _out_of_reach(repo, f"does not answer ({type(error).__name__})") from error
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = [name for name in sizes if name in only] if only else needed_files(list(sizes))
    if not wanted:
        raise ModelError(f"{repo} has nothing that is asked for; it has {', '.join(sorted(sizes)[:8])}.")
    if before is None or any(not (before / name).exists() for name in wanted) or before.name != info.sha:
        return _download(repo, revision, {name: sizes[name] for name in wanted}, report)
    return before, before.name


def _download(repo: str, revision: str | None, sizes: dict[str, int], report: Report) -> tuple[Path, str]:
    cache, total = hub_cache(), sum(sizes.values())
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < total:
        raise ModelError(
            f"{repo} takes {total / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {cache}; make room, or set "
            "HF_HOME to a folder on another disk."
        )
    disable_progress_bars()
    blobs = cache / f"models--{repo.replace('/', '--')}" / "blobs"
    try:
        with _watched(blobs, total, report):
            place = snapshot_download(
                repo,
                revision=revision,
                cache_dir=cache,
                endpoint=endpoint(),
                allow_patterns=list(sizes),
                max_workers=DOWNLOADS,
            )
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{repo} could not be downloaded from {endpoint()} ({type(error).__name__}: {said}); start again, and what "
            "has come is kept."
        ) from error
    return Path(place), Path(place).name


@contextmanager
def _watched(folder: Path, total: int, report: Report) -> Iterator[None]:
    """Report how much has been added to a folder, as a share of ``total`` bytes, while something is done."""
    ended, before = threading.Event(), _nbytes(folder)

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            report(LoadStage.DOWNLOADING, min((_nbytes(folder) - before) / max(total, 1), 1.0))

    report(LoadStage.DOWNLOADING, 0.0)
    watcher = threading.Thread(target=watch, name="download", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _nbytes(folder: Path) -> int:
    """Bytes on the disk in a folder's files: those that are still being written may be as long as they will be."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue  # was given its last name meanwhile
    return total


def _from_modelscope(repo: str, revision: str | None, only: tuple[str, ...], report: Report) -> Path:
    fetch = _modelscope().snapshot_download
    options: dict[str, Any] = {"revision": revision} if revision else {}
    options |= {"allow_patterns": list(only)} if only else {}
    try:
        folder = Path(fetch(repo, local_files_only=True, **options))
        if not only:
            inspect(folder)
        return folder
    except Exception as error:  # not there, or not all of it: what the package raises changes with its versions
        logger.info("%s is not whole in the cache of ModelScope: %s", repo, error)
    report(LoadStage.DOWNLOADING)
    try:
        return Path(fetch(repo, **options))
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{repo} could not be had from ModelScope ({type(error).__name__}: {said}); check its name and the network."
        ) from error


def _modelscope() -> ModuleType:
    """The module of ModelScope's package that downloads; the part for its hub alone will do."""
    for name in ("modelscope.hub.snapshot_download", "modelscope_hub.compat.snapshot_download"):
        try:
            return importlib.import_module(name)
        except ImportError as error:
            logger.info("%s: %s", name, error)
    raise ModelError(NO_MODELSCOPE)


def _out_of_reach(repo: str, why: str) -> ModelError:
    return ModelError(OUT_OF_REACH.format(repo=repo, cache=hub_cache(), endpoint=endpoint(), why=why))
