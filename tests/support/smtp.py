"""The filter under test: as a process with clients of its own, or one session alone.

    with Filter(tmp_path, {"plugins": "rcpt_ok\\nqueue/maildir var/mail"}) as filter:
        client = filter.connect("127.0.0.2")
        assert client.read() == "220 mx.test ESMTP"
        assert client.say("EHLO client.test").startswith("250-")

    with Conversation(load(tmp_path, {"plugins": "rcpt_ok"}), "192.0.2.1") as client:
        assert client.greeting == "220 mx.test ESMTP"
        assert client.say("NOOP") == "250 2.0.0 OK"

Replies are given as text, their lines joined by LF.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from smeconf.dns import Resolver
from smeconf.smtpd import loader
from smeconf.smtpd.address_list import AddressList
from smeconf.smtpd.config import Directory, ServerSettings
from smeconf.smtpd.hooks import PluginList
from smeconf.smtpd.limits import Limits
from smeconf.smtpd.loader import Configuration
from smeconf.smtpd.log import Log
from smeconf.smtpd.protocol import Connections, SmtpProtocol
from smeconf.smtpd.session import Session

SECONDS = 15.0  # how long anything may take before a test fails
DEFAULTS = {
    "me": "mx.test",
    "rcpthosts": "here.test",
    "workers": "1",
    "dns_servers": "127.0.0.1@9",
    "loglevel": "7",
    "plugins": "rcpt_ok\nqueue/maildir var/mail",
}
MAIL = "Subject: hello\r\n\r\nHello.\r\n"


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def write_directory(path: Path, files: dict[str, str]) -> Path:
    """Make `path` a configuration directory of these files, and nothing else of it."""
    for old in sorted(path.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() else old.unlink()
    for name, text in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return path


def load(tmp_path: Path, files: dict[str, str] | None = None) -> Configuration:
    """Load a configuration of DEFAULTS and `files`, ready to play sessions on."""
    directory = write_directory(tmp_path / "config", DEFAULTS | (files or {}))
    root = tmp_path / "root"
    configuration = loader.load(str(directory), str(root))
    os.makedirs(configuration.spool, exist_ok=True)
    for plugin in configuration.plugins():
        plugin.prepare(os.geteuid(), os.getegid())
    return configuration


def mails(folder: Path) -> list[bytes]:
    """Return the messages of a Maildir, oldest name first; tmp must be empty."""
    assert not list((folder / "tmp").glob("*"))
    return [file.read_bytes() for file in sorted((folder / "new").glob("*"))]


def stand_in(tmp_path: Path, plugins: PluginList, **settings: Any) -> Any:
    """A configuration of plugins that a test made itself."""
    values = {
        "me": "mx.test",
        "greeting": "mx.test",
        "listen": (),
        "user": "",
        "workers": 1,
        "dns_servers": (),
        "databytes": 0,
        "timeout_seconds": 300,
        "log_level": 7,
    }
    return Configuration(
        settings=ServerSettings(**{**values, **settings}),
        lists={"0": plugins},
        relay_clients=AddressList(()),
        resolver=Resolver([("127.0.0.1", 9)]),
        log=Log(7),
        spool=str(tmp_path),
        directory=Directory(str(tmp_path)),
        # What these tests are about is what would be errors, or too much, elsewhere.
        limits=Limits(junk_commands=0, errors_hard=0, errors_soft=0),
    )


class Conversation:
    """A client of one session without a socket; hooks run on a loop of their own."""

    def __init__(
        self, configuration: Configuration, remote: str = "192.0.2.1", port: int = 25
    ) -> None:
        self.session = Session(configuration, "1.1", remote, port)
        self.connection = self.session.connection
        self._runner = asyncio.Runner()

    def __enter__(self) -> Conversation:
        self.greeting = self._run(self.session.greet())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.session.disconnected())
        self.session.configuration.resolver.close()
        self._runner.close()

    def _run(self, work: Any) -> str:
        return text_of(self._runner.run(work))

    def say(self, *lines: str) -> str:
        """Send command lines; return the reply to the last."""
        for line in lines:
            reply = self._run(self.session.command(line.encode() + b"\r\n"))
        return reply

    def envelope(self, sender: str = "a@far.test", *recipients: str) -> None:
        """Come as far as DATA; every step must be accepted."""
        lines = [f"RCPT TO:<{one}>" for one in recipients or ("you@here.test",)]
        for line in ("EHLO client.test", f"MAIL FROM:<{sender}>", *lines):
            assert self.say(line)[:3] == "250", line

    def send(self, message: str | bytes = MAIL) -> str:
        """Send a message after its envelope; return the reply to its end."""
        data = message if isinstance(message, bytes) else message.encode()
        assert self.say("DATA").startswith("354")
        assert self.session.receive(data + b".\r\n") == b""
        return self._run(self.session.end_of_data())

    def deliver(self, *recipients: str, message: str | bytes = MAIL) -> str:
        """Send envelope and message; return the reply to its end."""
        self.envelope("a@far.test", *recipients)
        return self.send(message)


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it, a write an item."""

    def __init__(self, remote: str = "192.0.2.1") -> None:
        super().__init__({"peername": (remote, 9999), "sockname": ("127.0.0.1", 25)})
        self.writes: list[bytes] = []
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    @property
    def replies(self) -> list[str]:
        """What was written and not yet taken, a write an item."""
        taken, self.writes = self.writes, []
        return [text_of(one) for one in taken]


def on_wire(connections: Connections) -> tuple[SmtpProtocol, Wire]:
    """A protocol on a wire, its greeting still to be taken; needs a running loop."""
    wire = Wire()
    protocol = SmtpProtocol(connections)
    protocol.connection_made(wire)
    return protocol, wire


async def settle(protocol: SmtpProtocol) -> None:
    """Wait until no command of the protocol is being worked off."""
    async with asyncio.timeout(SECONDS):
        while protocol._task is not None or protocol._is_scheduled:
            if protocol._task is not None:
                await asyncio.wait([protocol._task])
            await asyncio.sleep(0)


def text_of(reply: bytes) -> str:
    """A reply as text, each line checked: CRLF ends it, 512 bytes, printable ASCII."""
    assert not reply or reply.endswith(b"\r\n")
    for line in reply.split(b"\r\n")[:-1]:
        assert len(line) <= 510
        assert line.isascii()
        assert line.decode().isprintable()
    return reply.replace(b"\r\n", b"\n").decode().removesuffix("\n")


class Client:
    """An SMTP client that sends what it is told, byte by byte."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        address = ("127.0.0.1", port)
        self.sock = socket.create_connection(address, SECONDS, (source, 0))
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> str:
        """Return one reply; empty when the connection ended."""
        lines = b""
        while line := self._file.readline():
            lines += line
            if line[3:4] != b"-":
                break
        return text_of(lines)

    def send(self, data: str | bytes) -> None:
        """Send exactly this."""
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def say(self, *lines: str) -> str:
        """Send lines, each after the reply to the one before; return the last."""
        for line in lines:
            self.send(line + "\r\n")
            reply = self.read()
        return reply

    def begin(self, *recipients: str) -> None:
        """Come as far as DATA; every step must be accepted."""
        assert self.read()[:4] == "220 "
        rcpts = [f"RCPT TO:<{one}>" for one in recipients or ("you@here.test",)]
        for line in ("EHLO client.test", "MAIL FROM:<a@far.test>", *rcpts):
            assert self.say(line)[:3] == "250", line
        assert self.say("DATA")[:3] == "354"

    def reset(self) -> None:
        """Vanish as a crashed host does, with RST in place of FIN."""
        linger = b"\1\0\0\0\0\0\0\0"
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def start_tls(self) -> str:
        """Turn on encryption, whoever the server is; return version and cipher."""
        assert self.say("STARTTLS")[:3] == "220"
        return self.handshake()

    def handshake(self) -> str:
        """Encrypt the connection, as a client that trusts anybody."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._file.close()
        self.sock = context.wrap_socket(self.sock)
        self._file = self.sock.makefile("rb")
        cipher = self.sock.cipher()
        assert cipher
        return f"{self.sock.version()} {cipher[0]}"

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.sock.close()


class Filter:
    """The command `smeconf-smtpd` on a configuration of DEFAULTS and `files`.

    Every client that is still connected is hung up before it is stopped.
    """

    def __init__(
        self,
        tmp_path: Path,
        files: dict[str, str] | None = None,
        *,
        root: Path | None = None,
        port: int = 0,
    ) -> None:
        self.port = port or free_port()
        self.root = root or tmp_path / "root"
        self.directory = tmp_path / "config"
        self.write(files or {})
        self.clients: list[Client] = []
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False

    def write(self, files: dict[str, str]) -> None:
        """Write the configuration directory anew."""
        listen = {"listen": f"127.0.0.1@{self.port}"}
        write_directory(self.directory, DEFAULTS | listen | files)

    def __enter__(self) -> Filter:
        self.start()
        try:
            self.wait_for("serving on")
        except BaseException:
            self.process.kill()
            self._join()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self._join()
        if kind is None:
            assert status == 0, self.log

    def start(self) -> None:
        """Start the process; do not wait for it to serve."""
        command = os.path.join(os.path.dirname(sys.executable), "smeconf-smtpd")
        self.process = subprocess.Popen(
            [command, "--config", str(self.directory), "--root", str(self.root)],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def wait_until_ended(self) -> int:
        """Wait for the process to end by itself; return its exit status."""
        try:
            return self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self._join()

    def _join(self) -> None:
        self._reader.join(SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line.decode().rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def log(self) -> str:
        """What was logged until now."""
        with self._changed:
            return "\n".join(self._lines)

    def wait_for(self, text: str, times: int = 1) -> str:
        """Wait for log lines that hold `text`; return the last of them."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [line for line in self._lines if text in line]
            return len(found) >= times or self._ended

        with self._changed:
            self._changed.wait_for(is_there, SECONDS)
            log = "\n".join(self._lines)
        assert len(found) >= times, f"no {text!r} in:\n{log}"
        return found[-1]

    def connect(self, source: str = "127.0.0.1") -> Client:
        """Connect a client from a loopback address; its greeting waits to be read."""
        client = Client(self.port, source)
        self.clients.append(client)
        return client

    def control(self, word: str) -> dict[str, Any]:
        """Say a word to the control socket and return its answer."""
        return control(self.root, word)

    @property
    def mails(self) -> list[bytes]:
        """The messages of the Maildir var/mail."""
        return mails(self.root / "var/mail")


def control(root: Path, word: str) -> dict[str, Any]:
    """Say a word to the control socket below `root` and return its answer."""
    directory = os.open(root / "run/qpsmtpd", os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(SECONDS)
            sock.connect(f"/proc/self/fd/{directory}/control")
            sock.sendall(word.encode() + b"\n")
            with sock.makefile("rb") as file:
                answer: dict[str, Any] = json.loads(file.readline())
                return answer
    finally:
        os.close(directory)


@contextlib.contextmanager
def silent_listener() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]
