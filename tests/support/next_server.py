"""A next server that says what a test tells it: SMTP or LMTP, as many clients as come.

    with NextServer(RCPT="451 later") as server:
        ...
    assert server.lines == ["EHLO mx.test", ...]

A script maps a verb, or a whole command line, to the reply; ``greeting``, ``text``
and ``end`` (of data) are steps too.  ``SILENT`` in place of a reply waits for the
client to go, ``CLOSE`` hangs up, ``RESET`` does so with RST.  Several scripts in
``turns`` serve one connection each, the last all that follow.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

SILENT, CLOSE, RESET = "(silent)", "(close)", "(reset)"
USUAL = {
    "greeting": "220 next ESMTP",
    "DATA": "354 go",
    "end": "250 ok, queued as 7",
    "QUIT": "221 bye",
    "STARTTLS": "220 go",
}
SECONDS = 15


def make_certificate(directory: Path, name: str = "localhost") -> Path:
    """Make a self-signed certificate with its key; return the file of both."""
    directory.mkdir(parents=True, exist_ok=True)
    key, certificate, both = (directory / f"{name}.{e}" for e in ("key", "crt", "pem"))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both


class NextServer:
    """Listens on a port of 127.0.0.1, or on a UNIX socket, in a thread of its own.

    ``lines`` are the commands of all connections, ``messages`` the texts as they were
    sent, their dots still stuffed; ``end_replies`` more replies to the end of data, as
    LMTP has them.  With a ``certificate`` STARTTLS works; ``implicit``: from the first
    byte on.
    """

    def __init__(
        self,
        *,
        turns: Sequence[Mapping[str, str]] = (),
        certificate: Path | None = None,
        implicit: bool = False,
        path: Path | None = None,
        end_replies: Sequence[str] = (),
        **script: str,
    ) -> None:
        self.turns = [dict(one) for one in turns] or [{}]
        self.script = script
        self.end_replies = list(end_replies)
        self.lines: list[str] = []
        self.messages: list[bytes] = []
        self.connections = 0
        self.open = 0
        self._certificate = certificate
        self._implicit = implicit
        self._listener = self._listen(path)
        self.port = self._listener.getsockname()[1] if path is None else 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._stop = asyncio.Event()
        self.changed = threading.Condition()
        self._writers: set[asyncio.StreamWriter] = set()

    def _listen(self, path: Path | None) -> socket.socket:
        if path is None:
            return socket.create_server(("127.0.0.1", 0))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        return listener

    @property
    def message(self) -> bytes:
        """The text of the only message."""
        (message,) = self.messages
        return message

    @property
    def verbs(self) -> list[str]:
        """The commands without their arguments."""
        return [line.partition(" ")[0] for line in self.lines]

    def __enter__(self) -> NextServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def drop_all(self) -> None:
        """Hang up on every client, and wait until that is done."""

        def drop() -> None:
            for writer in self._writers:
                writer.close()

        self._loop.call_soon_threadsafe(drop)
        self.wait_for_open(0)

    def wait_for_open(self, number: int) -> None:
        """Wait until that many connections are open."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.open == number, SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        tls = self._tls() if self._implicit else None
        start = (
            asyncio.start_unix_server
            if self._listener.family == socket.AF_UNIX
            else asyncio.start_server
        )
        server = await start(self._on_client, sock=self._listener, ssl=tls)
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]
        if others:  # what clients sent last is still to be read
            await asyncio.wait(others, timeout=1)
        for task in others:
            task.cancel()
        for writer in list(self._writers):
            writer.transport.abort()
        if others:
            await asyncio.wait(others, timeout=SECONDS)
        await asyncio.sleep(0)  # what was aborted is closed in the next turn

    def _tls(self) -> ssl.SSLContext:
        assert self._certificate is not None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._certificate)
        return context

    async def _on_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        script = USUAL | self.script
        script |= self.turns[min(self.connections, len(self.turns) - 1)]
        self.connections += 1
        self._count(writer, 1)
        try:
            with suppress(OSError, EOFError, ssl.SSLError):
                await self._converse(reader, writer, script)
            writer.close()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._count(writer, -1)

    def _count(self, writer: asyncio.StreamWriter, by: int) -> None:
        (self._writers.add if by > 0 else self._writers.discard)(writer)
        with self.changed:
            self.open += by
            self.changed.notify_all()

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        script: dict[str, str],
    ) -> None:
        if not await self._reply(reader, writer, script["greeting"]):
            return
        while line := await reader.readline():
            text = line.decode().removesuffix("\r\n")
            self.lines.append(text)
            key = text if text in script else text.partition(" ")[0]
            reply = script.get(key, "250 ok")
            if not await self._reply(reader, writer, reply) or key == "QUIT":
                return
            if key == "STARTTLS" and reply.startswith("220"):
                if self._certificate is None:
                    await reader.read(1)
                    writer.write(b"what is not TLS\r\n")
                    return
                before = writer.transport
                with suppress(AttributeError):  # comes of what is looked at below
                    await writer.start_tls(self._tls())
                if writer.transport is None:  # gone with the end of the handshake
                    writer._transport = before  # type: ignore[attr-defined]
                    return
            if key == "AUTH" or reply.startswith("334"):
                continue
            if key == "DATA" and reply.startswith("354"):
                if script.get("text") == CLOSE:
                    return
                await self._take_message(reader)
                for end in self.end_replies or [script["end"]]:
                    if not await self._reply(reader, writer, end):
                        return

    async def _take_message(self, reader: asyncio.StreamReader) -> None:
        text = []
        while (line := await reader.readline()) != b".\r\n":
            if not line:
                raise EOFError
            text.append(line)
        self.messages.append(b"".join(text))

    async def _reply(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: str
    ) -> bool:
        if reply == SILENT:
            while await reader.read(65536):
                pass
        if reply == RESET:
            linger = b"\1\0\0\0\0\0\0\0"
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        if reply in (SILENT, CLOSE, RESET):
            return False
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()
        return True
