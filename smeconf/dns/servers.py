"""The recursive servers of the site, and the sockets that they are asked over.

Questions leave from random ports, which are renewed (RFC 5452).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smeconf.dns.resolver import Lookup


def parse_servers(entries: Sequence[str]) -> list[tuple[str, int]]:
    """Return (address, port) for each entry, written `ip` or `ip@port`.

    Raises ValueError, in one line that names the entry, when one is neither.
    """
    servers = []
    for entry in entries:
        host, at, port = entry.strip().partition("@")
        try:
            number = int(port) if at and port.isdecimal() else 0 if at else 53
            if not 0 < number < 65536:
                raise ValueError(f"{port!r} is not a port")
            servers.append((str(ipaddress.ip_address(host)), number))
        except ValueError as error:
            raise ValueError(f"{entry!r} is not a DNS server: {error}") from None
    return servers


def system_servers() -> list[tuple[str, int]]:
    """Return (address, port) of the servers in /etc/resolv.conf, else 127.0.0.1."""
    import dns.resolver  # slow to import, and used only here

    found = dns.resolver.Resolver(configure=False)
    try:
        found.read_resolv_conf("/etc/resolv.conf")
    except (OSError, dns.exception.DNSException):
        pass  # a machine without one has its own server, or none at all
    return [(str(ip), 53) for ip in found.nameservers] or [("127.0.0.1", 53)]


class Server:
    """A recursive server, and the ports it is asked from."""

    __slots__ = ("address", "bit", "family", "next", "ports", "text")

    def __init__(self, number: int, ip: str, port: int, size: int) -> None:
        self.bit = 1 << number
        self.next = self
        self.address = (ip, port)
        self.family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self.text = f"{ip}@{port}"
        self.ports: list[Port | None] = [None] * size


class Port:
    """One UDP socket, with the questions that wait for an answer on it."""

    __slots__ = ("asked", "outstanding", "retire_at", "server", "sock")

    def __init__(self, server: Server, retire_at: float) -> None:
        self.server = server
        self.retire_at = retire_at
        self.asked = 0
        self.outstanding: dict[bytes, Lookup] = {}
        self.sock = socket.socket(server.family, socket.SOCK_DGRAM)
        try:
            self.sock.setblocking(False)
            # The kernel chooses a random port, and drops what others send to it.
            self.sock.connect(server.address)
        except OSError:
            self.sock.close()
            raise


async def exchange(server: Server, request: bytes) -> bytes:
    """Send one message by TCP and return the one that comes back.

    The length goes first, in two bytes (RFC 1035, 4.2.2).
    """
    loop = asyncio.get_running_loop()
    with socket.socket(server.family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, server.address)
        await loop.sock_sendall(sock, len(request).to_bytes(2, "big") + request)
        received, needed = b"", 2
        while len(received) < needed:
            chunk = await loop.sock_recv(sock, 65537)
            if not chunk:
                raise EOFError
            received += chunk
            if len(received) >= 2:
                needed = 2 + int.from_bytes(received[:2], "big")
    return received[2:needed]


def reason(error: OSError | EOFError) -> str:
    """Return a few words for the log."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, EOFError):
        return "connection closed"
    return os.strerror(error.errno or errno.EIO)
