"""The floor: a bare protocol on uvloop that answers SMTP and drops what it gets.

It knows commands by their first letter, checks nothing and logs nothing: what any
server in Python pays at least.  Run by bench/messages.py: ``PORT``.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

_REPLIES = {
    b"E": b"250-bench.test\r\n250-PIPELINING\r\n250 SIZE 0\r\n",
    b"D": b"354 go on\r\n",
    b"Q": b"221 bye\r\n",
}
_OK = b"250 OK\r\n"
_END = b"\r\n.\r\n"


class Bare(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = b""
        self.message: list[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self.transport = transport  # type: ignore[assignment]
        self.transport.write(b"220 bench.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer each line, and each message at its end."""
        self.buffer += data
        replies = []
        while self.buffer:
            if self.message is not None:
                end = self.buffer.find(_END)
                if end < 0:
                    self.message.append(self.buffer[:-4])
                    self.buffer = self.buffer[-4:]
                    break
                self.message.append(self.buffer[:end])
                self.buffer = self.buffer[end + 5 :]
                self.message = None
                replies.append(_OK)
                continue
            line, found, rest = self.buffer.partition(b"\r\n")
            if not found:
                break
            self.buffer = rest
            verb = line[:1].upper()
            replies.append(_REPLIES.get(verb, _OK))
            if verb == b"D":
                self.message = []
            elif verb == b"Q":
                self.transport.write(b"".join(replies))
                self.transport.close()
                return
        if replies:
            self.transport.write(b"".join(replies))


async def serve(port: int) -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Bare, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
