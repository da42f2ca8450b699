"""Which addresses may be asked: loopback and public ones; those of private networks only where the entry allows it."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

import httpcore2

from worker.backends.openai.problems import Refused

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class CheckedAddresses(httpcore2.AsyncNetworkBackend):
    """Resolves a name once, checks what it found, and connects to just that: a second look-up could say otherwise.

    ``clear_key``: requests carry a key that nothing encrypts, so that they stay off public networks.
    """

    def __init__(self, *, private: bool, clear_key: bool):
        self.private, self.clear_key = private, clear_key
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: "Iterable[httpcore2.SOCKET_OPTION] | None" = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises `Refused` where no address of ``host`` may be asked, ``httpcore2.ConnectError`` where none answers."""
        addresses = await self._resolve(host, port, timeout)
        reasons = [self.objection(address) for address in addresses]
        allowed = [address for address, reason in zip(addresses, reasons, strict=True) if reason is None]
        if not allowed:
            raise Refused(f"{host} is {addresses[0]}, {reasons[0]}")
        for address in allowed[:-1]:
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(str(allowed[-1]), port, timeout, local_address, socket_options)

    def objection(self, address: IPAddress) -> str | None:
        """Why an address may not be asked, as the end of a sentence; None where it may."""
        address = _embedded(address)
        if address.is_loopback:
            return None
        if address.is_multicast or address.is_unspecified:
            return "which is no address of one machine; correct base_url."
        if not address.is_global:
            return None if self.private else "an address of a private network; allow it with private = true."
        if self.clear_key:
            return "a public address, and http would show the key to everybody on the way; use https."
        return None

    async def _resolve(self, host: str, port: int, timeout: float | None) -> list[IPAddress]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise httpcore2.ConnectTimeout(f"{host} cannot be resolved in time") from None
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
        return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


def _embedded(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
