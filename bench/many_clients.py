"""A load from many addresses: each message from one that was never seen before.

Run by bench/messages.py on uvloop, as a process of its own: ``PORT MESSAGES FIRST``.
The clients are 127.1.0.0 and up, counted from FIRST; one message a connection, twenty
connections at a time, a command a packet, as smtp-source does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from collections.abc import Iterator

import uvloop

_CONNECTIONS = 20
_FIRST = int(ipaddress.IPv4Address("127.1.0.0"))
_TEXT = b"From: a@b.test\r\nMessage-Id: <1@b.test>\r\n\r\n" + (b"X" * 78 + b"\r\n") * 51
_STEPS = (
    b"EHLO client.test\r\n",
    b"MAIL FROM:<a@b.test>\r\n",
    b"RCPT TO:<user@local.test>\r\n",
    b"DATA\r\n",
    _TEXT + b".\r\n",
    b"QUIT\r\n",
)


class Client(asyncio.Protocol):
    """One connection: the next step at each whole reply."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = b""
        self.steps = iter(_STEPS)
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the greeting."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Go on when the last line of a reply is here."""
        self.buffer += data
        if not self.buffer.endswith(b"\n"):
            return
        last = self.buffer.rsplit(b"\n", 2)[-2]
        if last[3:4] != b"-":
            self.buffer = b""
            step = next(self.steps, None)
            if last[:1] not in b"23" and not self.done.done():
                self.done.set_exception(RuntimeError(f"refused: {last!r}"))
                self.transport.close()
            elif step is not None:
                self.transport.write(step)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is over: well, if every step was taken."""
        if not self.done.done():
            if next(self.steps, None) is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(RuntimeError("cut off"))


async def run(port: int, messages: int, first: int) -> None:
    """Send all messages.  Raises RuntimeError where one is not taken."""
    loop = asyncio.get_running_loop()
    addresses = iter(range(_FIRST + first, _FIRST + first + messages))

    async def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            source = str(ipaddress.IPv4Address(number))
            _, client = await loop.create_connection(
                Client, "127.0.0.1", port, local_addr=(source, 0)
            )
            await client.done

    await asyncio.gather(*(work(addresses) for _ in range(_CONNECTIONS)))


if __name__ == "__main__":
    uvloop.run(run(*map(int, sys.argv[1:])))
