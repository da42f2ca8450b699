"""``up``: everything on one machine, supervised."""

import errno
import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tasks.errors import ConfigurationError
from tasks.host import redis_server
from tasks.host.model_watch import ModelWatch
from tasks.host.supervisor import Child, Supervisor, say
from tasks.ledger import Ledger
from tasks.ledger.migrate import migrate
from tasks.queue.routine import Routine
from tasks.registry import ModelEntry, Registry
from tasks.settings import Settings

NEEDED_BYTES = 200 * 2**20
LOOK_SECONDS = 0.5


def up(settings: Settings, host: str, port: int) -> None:
    """Run Redis, web, scorer and a worker a model until a signal. Raises `ConfigurationError` before any of it runs."""
    registry = Registry.load(settings.models)
    _check_disk(settings.data)
    _check_port(host, port)
    with _locked(settings.data):
        server = redis_server.prepare(settings.data / "redis")
        settings = replace(settings, redis_url=server.url)
        migrate(settings)
        url = _url(host, port)
        watch = ModelWatch(Ledger(settings), registry.names, url)
        supervisor = Supervisor(watch.died)
        supervisor.stop_on_signals()
        try:
            environment = settings.to_environment()
            supervisor.add(Child("redis", server.argv, environment))
            redis_server.wait_until_up(settings.redis_url)
            _note_redis(settings)
            for child in _children(registry, environment, host, port):
                supervisor.add(child)
            say(f"starting on {url} (Ctrl-C stops)")
            Routine("watch", LOOK_SECONDS, watch.tell).start()
            supervisor.watch()
        finally:
            say("stopping: running completions end first …")
            supervisor.stop()
            settings.redis_url_file.unlink(missing_ok=True)


def _url(host: str, port: int) -> str:
    """Where a person on this machine finds the pages."""
    here = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


def _children(registry: Registry, environment: dict[str, str], host: str, port: int) -> Iterator[Child]:
    tasks = [sys.executable, "-m", "tasks"]
    yield Child("web", [*tasks, "web", "--host", host, "--port", str(port)], environment)
    yield Child("scorer", [*tasks, "scorer"], environment)
    cores = share_cores(list(registry.models.values()), sorted(os.sched_getaffinity(0)))
    for name, own in cores.items():
        argv = [sys.executable, "-m", "worker", "--model", name, "--cores", ",".join(map(str, own))]
        yield Child(f"worker {name}", argv, environment, name)


def share_cores(models: list[ModelEntry], available: list[int]) -> dict[str, tuple[int, ...]]:
    """Cores for each model's worker: its own setting, else an even share of ``available`` (at least one)."""
    unset = [model.name for model in models if not model.cores]
    shares: dict[str, tuple[int, ...]] = {model.name: model.cores for model in models}
    for position, name in enumerate(unset):
        start = position * len(available) // len(unset)
        stop = (position + 1) * len(available) // len(unset)
        shares[name] = tuple(available[start:stop]) or (available[position % len(available)],)
    return shares


def _check_disk(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(data).free
    except OSError as error:
        raise ConfigurationError(f"{data} cannot be used ({error.strerror}); give a folder with --data.") from None
    if not os.access(data, os.W_OK):
        raise ConfigurationError(f"{data} cannot be written; give another folder with --data.")
    if free < NEEDED_BYTES:
        raise ConfigurationError(f"{data} has only {free / 2**20:.0f} MB left; free 200 MB or give --data.")


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            problem = "is taken by another program" if taken else f"cannot be used ({error.strerror})"
            raise ConfigurationError(f"Port {port} on {host} {problem}; choose another with --port.") from None


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    with (data / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"Touchstone is already running on {data}; stop it or give --data.") from None
        yield


def _note_redis(settings: Settings) -> None:
    settings.redis_url_file.unlink(missing_ok=True)
    with os.fdopen(os.open(settings.redis_url_file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(settings.redis_url)
