"""queue/smtp-forward: hand mail to another SMTP server.

Hook      queue
Argument  HOST                  its name or address; HOST:PORT and [IPv6]:PORT too
          PORT 25
Option    timeout 60            seconds for each step
From      qpsmtpd{QueueMethod}  smtp-forward
          qpsmtpd{QueueTarget}  HOST or HOST:PORT

The client is told 250 only when the other server took the message for every recipient.
Does it refuse one for good, so is the whole message, before any of it was sent; else
the client is asked to try again later.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from smeconf.smtpd.hooks import Answer, deny, denysoft, ok
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Context, Plugin, argument, option
from smeconf.smtpd.state import Connection, Transaction

# Enhanced codes of the other server's lines: our own reply brings its own.
_ENHANCED = re.compile(r"(^| / )[245]\.\d{1,3}\.\d{1,3} ")


class _Refused(Exception):
    """The other server's reply to a step, where it was not what is needed."""

    def __init__(self, step: str, code: int, text: str) -> None:
        super().__init__(f"{step}: {code} {text}")
        self.text = text
        # What it says before MAIL is not said of this message.
        self.is_final = 500 <= code < 600 and step not in ("greeting", "EHLO")


class SmtpForward(Plugin):
    """Forwards by SMTP."""

    @dataclass(frozen=True)
    class Settings:
        """Where to."""

        host: str = argument(0, "")
        port: int = argument(1, 25)
        timeout: int = option(60)

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        super().__init__(name, settings, context)
        if not settings.host:
            raise ValueError("needs a host")
        self._host, self._port = _host_and_port(settings.host, settings.port)

    async def hook_queue(self, connection: Connection, message: Message) -> Answer:
        """Forward the message; accept it when the other server did."""
        transaction = connection.transaction
        assert transaction is not None
        # In a task of its own, as wait_for needs one.
        return await asyncio.ensure_future(
            self._forward(connection, transaction, message)
        )

    async def _forward(
        self, connection: Connection, transaction: Transaction, message: Message
    ) -> Answer:
        where = f"{self._host}:{self._port}"
        try:
            text = await self._converse(transaction, message)
        except _Refused as refused:
            self.log_error(connection, f"{where} answered {refused}")
            if refused.is_final:
                return deny(_ENHANCED.sub(r"\1", refused.text))
            return denysoft("The next server is not ready, try again later")
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            why = str(error) or type(error).__name__
            self.log_error(connection, f"{where}: {why}")
            return denysoft("The next server does not answer, try again later")
        self.log_pass(connection, f"{where}: {text}")
        return ok(f"Queued! {text}")

    async def _converse(self, transaction: Transaction, message: Message) -> str:
        """Play the client; return the text of the last reply."""
        opening = asyncio.open_connection(self._host, self._port, limit=16384)
        reader, writer = await asyncio.wait_for(opening, self.settings.timeout)
        peer = _Peer(reader, writer, self.settings.timeout)
        try:
            await peer.step("greeting", b"", 220)
            await peer.step("EHLO", f"EHLO {self.context.me}".encode(), 250)
            await peer.step("MAIL", f"MAIL FROM:<{transaction.sender}>".encode(), 250)
            for recipient in transaction.recipients:
                await peer.step("RCPT", f"RCPT TO:<{recipient}>".encode(), 250, 251)
            await peer.step("DATA", b"DATA", 354)
            text = await peer.send_message(message)
            writer.write(b"QUIT\r\n")
            return text
        finally:
            writer.close()


class _Peer:
    """The other server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout = timeout

    async def step(self, name: str, command: bytes, *wanted: int) -> str:
        """Send a command (none for the greeting); return the text of the reply.

        Raises _Refused for a reply that is not wanted, OSError and EOFError where the
        connection fails.
        """
        if command:
            self._writer.write(command + b"\r\n")
        code, text = await asyncio.wait_for(self._reply(), self._timeout)
        if code not in wanted:
            raise _Refused(name, code, text)
        return text

    async def send_message(self, message: Message) -> str:
        """Send the text, its dots stuffed; return the text of the reply."""
        carried = b"\r\n"  # a dot is stuffed behind CRLF, which pieces may cut
        for piece in message.pieces():
            stuffed = (carried + piece).replace(b"\r\n.", b"\r\n..")
            self._writer.write(stuffed[len(carried) :])
            carried = (carried + piece)[-2:]
            await asyncio.wait_for(self._writer.drain(), self._timeout)
        self._writer.write(b".\r\n" if carried == b"\r\n" else b"\r\n.\r\n")
        return await self.step("end of data", b"", 250)

    async def _reply(self) -> tuple[int, str]:
        lines: list[str] = []
        while True:
            line = await self._reader.readline()
            if not line.endswith(b"\n"):
                raise EOFError("closed the connection")
            if len(lines) > 100 or not line[:3].isdigit():
                raise ValueError(f"no SMTP reply: {line[:60]!r}")
            lines.append(line[4:].decode("utf-8", "replace").strip())
            if line[3:4] != b"-":
                return int(line[:3]), " / ".join(lines)


def _host_and_port(host: str, port: int) -> tuple[str, int]:
    """Split HOST:PORT and [IPv6]:PORT.  Raises ValueError."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        rest = rest.removeprefix(":")
    elif host.count(":") == 1:
        name, _, rest = host.partition(":")
    else:
        return host, port
    if rest and not (rest.isdigit() and 0 < int(rest) < 65536):
        raise ValueError(f"{host}: no port")
    return name, int(rest) if rest else port
