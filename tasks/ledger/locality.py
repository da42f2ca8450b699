"""Whether a process may use the ledger that it is told to: an SQLite file serves the processes of one machine only."""

import errno
import platform
import socket
from pathlib import Path

from sqlalchemy import make_url

from tasks.errors import ConfigurationError
from tasks.settings import Settings

MACHINE_ID = Path("/etc/machine-id")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
ADVICE = "set TOUCHSTONE_DATABASE_URL to a PostgreSQL that every host reaches."


def note_home(settings: Settings) -> None:
    """Write beside an SQLite ledger which machine it is on."""
    if file := _home_file(settings):
        file.write_text("\n".join(_identity()), encoding="ascii")


def check_home(settings: Settings) -> None:
    """Raises `ConfigurationError` where the ledger is an SQLite file and this is another machine than the ledger's."""
    file = _home_file(settings)
    if file is None:
        return
    redis_host = make_url(settings.redis_url).host
    if redis_host and not _is_here(redis_host):
        raise ConfigurationError(f"Redis is on another host ({redis_host}), but SQLite serves one host only: {ADVICE}")
    try:
        home = set(file.read_text(encoding="ascii").split())
    except FileNotFoundError:
        return
    # After a restart only the machine's id is the same, in a container on the same machine only the boot's.
    if home.isdisjoint(_identity()):
        ledger = file.with_suffix("")
        raise ConfigurationError(f"{ledger} belongs to another host, and SQLite serves one host only: {ADVICE}")


def _home_file(settings: Settings) -> Path | None:
    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(f"{url.database}.home")


def _identity() -> list[str]:
    found = [file.read_text(encoding="ascii").strip() for file in (MACHINE_ID, BOOT_ID) if file.exists()]
    return [identity for identity in found if identity] or [platform.node()]


def _is_here(host: str) -> bool:
    """Whether an address is one of this machine's; a name that nobody knows is taken for one, Redis will tell."""
    try:
        places = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return True
    for family, kind, protocol, _, address in places:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    continue
            return True
    return False
