"""Many sessions held open at once, and then a message over every one of them."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import ExitStack

_FIRST = int(ipaddress.IPv4Address("127.2.0.0"))
_SECONDS = 20.0
_TEXT = b"From: a@b.test\r\n\r\n" + (b"X" * 78 + b"\r\n") * 51


class HeldSessions:
    """Sessions that have said EHLO, each from an address of its own."""

    def __init__(self, port: int, count: int, stack: ExitStack) -> None:
        """Open them; ``stack`` closes them."""
        self._sockets = []
        for number in range(count):
            source = str(ipaddress.IPv4Address(_FIRST + number))
            client = socket.create_connection(
                ("127.0.0.1", port), _SECONDS, source_address=(source, 0)
            )
            self._sockets.append(stack.enter_context(client))
        for client in self._sockets:
            _expect(client, b"2")
            client.sendall(b"EHLO client.test\r\n")
            _expect(client, b"2")

    def send_messages(self) -> int:
        """Send a message over each, all at once; return how many were taken."""
        steps = (
            (b"MAIL FROM:<a@b.test>\r\n", b"2"),
            (b"RCPT TO:<user@local.test>\r\n", b"2"),
            (b"DATA\r\n", b"3"),
            (_TEXT + b".\r\n", b"2"),
        )
        living = self._sockets
        for step, wanted in steps:
            for client in living:
                client.sendall(step)
            living = [client for client in living if _is_reply(client, wanted)]
        return len(living)


def _is_reply(client: socket.socket, wanted: bytes) -> bool:
    try:
        _expect(client, wanted)
    except (OSError, RuntimeError):
        return False
    return True


def _expect(client: socket.socket, wanted: bytes) -> None:
    """Read one reply, and no more.  Raises RuntimeError unless it is as wanted."""
    buffer = b""
    while not buffer.endswith(b"\n") or buffer.rsplit(b"\n", 2)[-2][3:4] == b"-":
        received = client.recv(4096)
        if not received:
            raise RuntimeError("connection closed")
        buffer += received
    if buffer[:1] != wanted:
        raise RuntimeError(f"refused: {buffer!r}")
