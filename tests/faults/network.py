"""Hosts of a test's own: network namespaces joined by a bridge, each with a host name of its own."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.conftest import require

LETTERS = itertools.cycle("abcdefghijklmnopqrstuvwxyz")
NETWORK = f"10.77.{os.getpid() % 250}"


@dataclass(frozen=True)
class Host:
    """A network namespace ``name`` with one address, behind the bridge's port ``port``."""

    name: str
    address: str
    port: str

    @property
    def inside(self) -> Sequence[str]:
        """A command that runs another one on this host."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        return ["ip", "netns", "exec", self.name, *named]

    def pull_cable(self) -> None:
        """The link goes down, and both ends see it."""
        ip("link", "set", self.port, "down")

    def put_back_cable(self) -> None:
        ip("link", "set", self.port, "up")

    def swallow(self, all_packets: bool) -> None:
        """The bridge drops every packet of this host without a word: nobody sees that a link is gone."""
        bridge("link", "set", "dev", self.port, "state", "0" if all_packets else "3")


class Network:
    """A bridge; this process has the address ``.254`` on it."""

    def __init__(self) -> None:
        # A namespace's interfaces outlive it for a moment: every network has names of its own.
        self.bridge = f"t{os.getpid()}{next(LETTERS)}"
        self.hosts: list[Host] = []
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{NETWORK}.254/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")

    def host(self, wire: str | None = None) -> Host:
        """A new host. ``wire``: an interface that is to be its cable, whose other end is at the bridge; else a veth."""
        number = len(self.hosts) + 1
        name = f"{self.bridge}-host{number}"
        port = f"{self.bridge}p{number}"
        ip("netns", "add", name)
        if wire is None:
            wire = f"{self.bridge}w{number}"
            ip("link", "add", port, "type", "veth", "peer", "name", wire)
            self.attach(port)
        made = Host(name, f"{NETWORK}.{number}", port)
        self.hosts.append(made)
        ip("link", "set", wire, "netns", name)
        ip("-n", name, "addr", "add", f"{made.address}/24", "dev", wire)
        for interface in (wire, "lo"):
            ip("-n", name, "link", "set", interface, "up")
        return made

    def attach(self, port: str) -> None:
        """Plug an interface into the bridge."""
        ip("link", "set", port, "master", self.bridge)
        ip("link", "set", port, "up")

    def remove(self) -> None:
        for host in self.hosts:
            ip("netns", "del", host.name)
        ip("link", "del", self.bridge)


@contextmanager
def network() -> Iterator[Network]:
    """Skips the test where namespaces cannot be made."""
    require(shutil.which("ip") is not None and shutil.which("bridge") is not None, "iproute2")
    require(os.geteuid() == 0, "root (network namespaces need it)")
    made = Network()
    try:
        yield made
    finally:
        made.remove()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def bridge(*arguments: str) -> None:
    subprocess.run(["bridge", *arguments], check=True, capture_output=True)
