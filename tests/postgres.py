"""A PostgreSQL of the tests' own: a fresh cluster in a temporary folder, reached over a socket there."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def find_binaries() -> Path | None:
    """The folder of initdb and pg_ctl; None where PostgreSQL is not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@dataclass(frozen=True)
class Cluster:
    """A server that can be stopped and started; ``url`` is a database in it."""

    binaries: Path
    folder: Path
    host: str = ""
    prefix: Sequence[str] = ()

    @property
    def url(self) -> str:
        return f"postgresql://touchstone@/postgres?host={self.folder}"

    @property
    def tcp_url(self) -> str:
        return f"postgresql://touchstone@{self.host}:5432/postgres"

    @classmethod
    @contextmanager
    def running(cls, binaries: Path, host: str = "", prefix: Sequence[str] = ()) -> "Iterator[Cluster]":
        """Make a cluster and start it; ``host``: an address to listen on too; ``prefix``: a command that runs it."""
        with tempfile.TemporaryDirectory(prefix="touchstone-pg-", ignore_cleanup_errors=True) as name:
            # PostgreSQL does not run as root; Debian's package makes a user for it.
            user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
            if user:
                shutil.chown(name, "postgres")
            made = cls(binaries, Path(name), host, [*prefix, *user])
            made._run("initdb", "-U", "touchstone", "--auth=trust", "--encoding=UTF8", "--no-sync")
            if host:
                with (made.folder / "data" / "pg_hba.conf").open("a") as rules:
                    rules.write("host all all samenet trust\n")
            made.start()
            try:
                yield made
            finally:
                made.stop("immediate")

    def start(self) -> None:
        options = f"-c listen_addresses='{self.host}' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def stop(self, mode: str) -> None:
        self._run("pg_ctl", "-m", mode, "stop")

    def _run(self, program: str, *arguments: str) -> None:
        argv = [*self.prefix, str(self.binaries / program), "-D", f"{self.folder}/data", *arguments]
        subprocess.run(argv, check=True, cwd="/", stdout=subprocess.DEVNULL)


@contextmanager
def cluster(binaries: Path) -> Iterator[str]:
    """Start a cluster and yield the URL of a database in it."""
    with Cluster.running(binaries) as made:
        yield made.url
