"""Ports of this machine: one that is free, and who may reach one that is in use."""

import ipaddress
import socket
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENS = "0A"


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens_beyond_loopback(port: int) -> bool:
    """Whether whoever listens on ``port`` can be reached from other machines; False where the system does not tell."""
    for table in TABLES:
        if not table.exists():
            continue
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, listening = local.partition(":")
            if state == LISTENS and int(listening, 16) == port and not _address(address).is_loopback:
                return True
    return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as the kernel writes it: hexadecimal, each four bytes in this machine's order."""
    words = bytes.fromhex(text)
    address = ipaddress.ip_address(b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4)))
    return getattr(address, "ipv4_mapped", None) or address
