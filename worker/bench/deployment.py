"""Where a benchmark of more than the engine takes place: Redis, a ledger and a registry, all of its own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import ConfigurationError
from tasks.host import redis_server
from tasks.ledger.migrate import migrate
from tasks.settings import Settings

POSTGRES_PLACES = "/usr/lib/postgresql/*/bin/initdb"


@contextmanager
def scene(database: str, registry: str) -> Iterator[Settings]:
    """Settings of a fresh Redis and a fresh ledger for the models of ``registry`` (TOML), all gone at the end.

    ``database``: ``sqlite``, ``postgresql`` (a server is started, with its usual settings) or the URL of an empty
    database. Raises `ConfigurationError` where a server cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="touchstone-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user where we are root
        models = folder / "models.toml"
        models.write_text(registry, encoding="utf-8")
        with _redis(folder / "redis") as redis_url, _database(database, folder) as database_url:
            settings = Settings(redis_url=redis_url, database_url=database_url, data=folder, models=models)
            migrate(settings)
            yield settings


def model_names(number: int) -> list[str]:
    """Names of simulated models."""
    return [f"simulated-{i}" for i in range(number)]


def simulated_models(number: int) -> str:
    """A registry of that many simulated models."""
    return "\n".join(f'[[model]]\nname = "{name}"\nsource = "bench/{name}"\n' for name in model_names(number))


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    server = redis_server.prepare(folder)
    process = subprocess.Popen(server.argv, stdin=subprocess.DEVNULL)
    try:
        redis_server.wait_until_up(server.url)
        yield server.url
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _database(database: str, folder: Path) -> Iterator[str]:
    if database == "sqlite":
        yield f"sqlite:///{folder / 'touchstone.db'}"
    elif database == "postgresql":
        with _postgres(folder / "postgresql") as url:
            yield url
    else:
        yield database


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """A server with Debian's settings (every commit reaches the disk), reached over a socket in ``folder``."""
    initdb = _find_initdb()
    pg_ctl = str(initdb.with_name("pg_ctl"))
    folder.mkdir()
    # PostgreSQL does not run as root; its package makes a user for it.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")

    def run(*arguments: str) -> None:
        subprocess.run([*as_user, *arguments], check=True, cwd="/", stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    run(str(initdb), "-D", data, "-U", "touchstone", "--auth=trust", "--encoding=UTF8", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    run(pg_ctl, "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql://touchstone@/postgres?host={folder}"
    finally:
        run(pg_ctl, "-D", data, "-m", "immediate", "stop")


def _find_initdb() -> Path:
    if found := shutil.which("initdb"):
        return Path(found).resolve()
    versions = sorted(Path("/").glob(POSTGRES_PLACES.lstrip("/")))
    if not versions:
        raise ConfigurationError("There is no PostgreSQL server; install one or give --database a URL.")
    return versions[-1]
