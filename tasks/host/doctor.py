"""Is everything here that Touchstone needs, and if not, what to do."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from tasks.errors import TouchstoneError
from tasks.ledger import Ledger
from tasks.queue.live import connect
from tasks.registry import LocalModel, ModelEntry, Registry
from tasks.settings import Settings

ENOUGH_BYTES = 2**30
COMPILERS = ("c++", "g++")
FULL_SHARE = 0.7  # of Redis' memory, from which on it is worth a warning


@dataclass(frozen=True)
class Finding:
    subject: str
    ok: bool
    text: str


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; one thing that is missing keeps nothing else from being looked at."""
    return [_redis(settings), _ledger(settings), *_models(settings), _cores(), _compiler(), _disk(settings)]


def _redis(settings: Settings) -> Finding:
    try:
        facts = connect(settings.redis_url).info()
    except (RedisError, ValueError) as error:
        reason = type(error).__name__
        text = f"no answer ({reason}); run './touchstone up', or set TOUCHSTONE_REDIS_URL to a running Redis"
        return Finding("Redis", False, text)
    version, used, most = facts["redis_version"], facts["used_memory"], facts["maxmemory"]
    if facts["maxmemory_policy"] != "noeviction":
        text = f"version {version} throws messages away when it is full; set maxmemory-policy to noeviction"
        return Finding("Redis", False, text)
    if most and used > FULL_SHARE * most:
        text = f"version {version} is {used / most:.0%} full; raise maxmemory, for at 100% it takes no message"
        return Finding("Redis", False, text)
    return Finding("Redis", True, f"version {version}, {used / 2**20:.0f} MB")


def _ledger(settings: Settings) -> Finding:
    try:
        ledger = Ledger(settings)
        ledger.ping()
    except TouchstoneError as error:
        text = f"{error.message} Run './touchstone up' or 'python -m tasks migrate', or correct TOUCHSTONE_DATABASE_URL"
        return Finding("ledger", False, text)
    return Finding("ledger", True, f"{ledger.database.engine.dialect.name}, {ledger.runs.total()} runs")


def _models(settings: Settings) -> list[Finding]:
    try:
        registry = Registry.load(settings.models)
    except TouchstoneError as error:
        return [Finding("models", False, error.message)]
    return [_model(entry) for entry in registry.models.values()]


def _model(entry: ModelEntry) -> Finding:
    subject = f"model {entry.name}"
    if isinstance(entry, LocalModel):
        place = Path(entry.location)
        if place.is_absolute() and not place.exists():
            return Finding(subject, False, f"there is no {place}; correct source in models.toml, or put it back there")
        return Finding(subject, True, f"{entry.source} on {entry.device}")
    if entry.serve and shutil.which(entry.serve[0]) is None:
        return Finding(subject, False, f"{entry.serve[0]} is not here; install it, or correct serve in models.toml")
    return Finding(subject, True, f"a server: {entry.base_url or f'started by {entry.serve[0]}'}")


def _cores() -> Finding:
    available = sorted(os.sched_getaffinity(0))
    return Finding("cores", True, f"{len(available)} for this process ({', '.join(map(str, available))})")


def _compiler() -> Finding:
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    without = "none, so models on a CPU run on torch's kernels, about half as fast; install g++"
    return Finding("C++ compiler", True, found or without)


def _disk(settings: Settings) -> Finding:
    existing = next(folder for folder in (settings.data, *settings.data.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 2**30:.1f} GB free at {existing}"
    return Finding("disk", free >= ENOUGH_BYTES, text if free >= ENOUGH_BYTES else f"{text}; free at least 1 GB")
