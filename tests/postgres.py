"""A PostgreSQL of the tests' own: a fresh cluster in a temporary folder, reached over a socket there."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find_binaries() -> Path | None:
    """The folder of initdb and pg_ctl; None where PostgreSQL is not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@contextmanager
def cluster(binaries: Path) -> Iterator[str]:
    """Start a cluster and yield the URL of a database in it."""
    # PostgreSQL does not run as root; Debian's package makes a user for it.
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="touchstone-pg-", ignore_cleanup_errors=True) as name:
        if prefix:
            shutil.chown(name, "postgres")
        data = f"{name}/data"

        def run(*arguments: str) -> None:
            subprocess.run([*prefix, *arguments], check=True, cwd="/", stdout=subprocess.DEVNULL)

        run(str(binaries / "initdb"), "-D", data, "-U", "touchstone", "--auth=trust", "--encoding=UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={name} -c fsync=off"
        run(str(binaries / "pg_ctl"), "-D", data, "-o", options, "-l", f"{name}/log", "-w", "start")
        try:
            yield f"postgresql://touchstone@/postgres?host={name}"
        finally:
            run(str(binaries / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
