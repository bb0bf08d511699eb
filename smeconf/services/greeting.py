"""The proof that a filter serves: a new connection gets its greeting.

Any reply is one: 220 says welcome, 4xx and 5xx (RFC 5321, 4.3.2) that the filter is
there but full, or does not like this machine.
"""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from smeconf.services.service import ServiceError

# How long one connection may be silent, and an address without a greeting in all.
TRY_SECONDS = 10.0
ALL_SECONDS = 30.0
_PAUSE_SECONDS = 0.1
_GOODBYE_SECONDS = 2.0
_MAX_BYTES = 65536

# What stands for "all addresses" is reached through the loopback.
_NEAR = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
_GREETING = re.compile(rb"(220|[45]\d\d)(?:[ -]|\r?\n)")
_LAST_LINE = re.compile(rb"^\d{3}(?: [^\n]*)?\r?\n", re.MULTILINE)

Address = tuple[str, int]


def await_greetings(name: str, answer: dict[str, Any]) -> None:
    """Have service ``name`` greet on each address of its control socket's answer.

    Raises ServiceError naming the address where it does not within its time.
    """
    for host, port in _addresses(name, answer):
        try:
            _await_greeting((_NEAR.get(host, host), port))
        except (OSError, ValueError) as error:
            where = f"{_NEAR.get(host, host)}@{port}"
            why = getattr(error, "strerror", None) or error
            raise ServiceError(f"{name} does not greet on {where}: {why}") from error


def _addresses(name: str, answer: dict[str, Any]) -> list[Address]:
    """Return where a filter listens: its answer has ``host:port``, ``[host]:port``."""
    listen = answer.get("listen")
    addresses = []
    for entry in listen if isinstance(listen, list) else []:
        host, _, port = str(entry).rpartition(":")
        if not port.isdecimal():
            raise ServiceError(f"{name} does not say where it listens: {entry!r}")
        addresses.append((host.removeprefix("[").removesuffix("]"), int(port)))
    if not addresses:
        raise ServiceError(f"{name} does not say where it listens")
    return addresses


def _await_greeting(address: Address) -> None:
    """Try until there is a greeting.

    Raises OSError where no connection comes about in time, ValueError for what is no
    greeting.
    """
    deadline = time.monotonic() + ALL_SECONDS
    while True:
        left = deadline - time.monotonic()
        try:
            return _greet(address, min(TRY_SECONDS, max(left, _PAUSE_SECONDS)))
        except (ConnectionError, TimeoutError) as error:
            # One that has just begun to listen may still refuse or reset.
            if time.monotonic() + _PAUSE_SECONDS >= deadline:
                raise _explained(error) from error
            time.sleep(_PAUSE_SECONDS)


def _explained(error: OSError) -> OSError:
    if isinstance(error, TimeoutError):
        return TimeoutError(f"no greeting within {TRY_SECONDS:g} s")
    return error


def _greet(address: Address, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with socket.create_connection(address, timeout=seconds) as client:
        said = b""
        while not _LAST_LINE.search(said) and len(said) < _MAX_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            client.settimeout(left)
            piece = client.recv(4096)
            if not piece and not said:
                raise ConnectionResetError("it closed the connection")
            said += piece
            if not piece or not _may_be_greeting(said):
                break
        if not _GREETING.match(said):
            raise ValueError(f"it said {said[:60]!r}")
        _say_goodbye(client)


def _may_be_greeting(said: bytes) -> bool:
    """Tell whether waiting for more of it has a point."""
    return len(said) < 4 or _GREETING.match(said) is not None


def _say_goodbye(client: socket.socket) -> None:
    """End the session as SMTP wants it; what comes of that no longer matters."""
    try:
        client.settimeout(_GOODBYE_SECONDS)
        client.sendall(b"QUIT\r\n")
        deadline = time.monotonic() + _GOODBYE_SECONDS
        while client.recv(4096) and time.monotonic() < deadline:
            pass
    except OSError:
        pass
