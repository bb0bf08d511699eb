"""The configuring half under test: a machine of its own below one directory.

    machine = Machine(tmp_path)
    machine.run("config setprop qpsmtpd DNSBL enabled")
    assert machine.run("config getprop qpsmtpd DNSBL").output == "enabled\\n"

    machine.fragment("etc/motd", "10name", "{{ SystemName }}\\n")
    machine.event("motd-update", targets=["etc/motd"])
    assert machine.run("signal-event motd-update").status == 0

Commands are real processes; what need not be one goes through the library, with
``machine.paths``.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from smeconf.database import Database
from smeconf.events import Report, Run, find_event
from smeconf.paths import Paths
from smeconf.system import System
from smeconf.templates import Expander, Layers, Snapshot

BIN = Path(sys.executable).parent
SECONDS = 30


@dataclass(frozen=True)
class Result:
    """What a command did."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class FileFacts:
    """What must not differ where nothing was to change."""

    data: bytes
    mode: int
    owner: tuple[int, int]
    inode: int
    mtime: int


class Machine:
    """A root directory, and the commands that work on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = Paths(str(root))
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ESMITH_", "SMECONF_", "PYTHON", "DBPATH"))
        }
        self.environment |= {"SMECONF_ROOT": str(root), "LC_ALL": "C.UTF-8"}

    def run(
        self,
        *words: str | bytes,
        stdin: str = "",
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a command: its words, or one line of them as in a shell.

        ``check``: exit status 0 is expected.
        """
        if len(words) == 1 and isinstance(words[0], str):
            words = tuple(shlex.split(words[0]))
        done = subprocess.run(
            [BIN / os.fsdecode(words[0]), *words[1:]],
            input=stdin.encode("utf-8", "surrogateescape"),
            capture_output=True,
            env={**self.environment, **(env or {})},
            timeout=SECONDS,
            check=False,
        )
        result = Result(
            done.returncode,
            done.stdout.decode("utf-8", "surrogateescape"),
            done.stderr.decode("utf-8", "surrogateescape"),
        )
        assert not check or result.status == 0, result
        return result

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command; its output, both kinds, is for the caller to read."""
        return subprocess.Popen(
            [BIN / words[0], *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
        )

    def path(self, path: str) -> Path:
        """Return where a path lies below the root."""
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str | bytes, mode: int | None = None) -> Path:
        """Write a file below the root; return its path."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        data = (
            text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        )
        file.write_bytes(data)
        if mode is not None:
            file.chmod(mode)
        return file

    def read(self, path: str) -> str:
        """Return a file below the root."""
        return self.path(path).read_bytes().decode("utf-8", "surrogateescape")

    def facts(self, path: str) -> FileFacts | None:
        """Return all that can be known of a file, None where there is none."""
        file = self.path(path)
        if not file.exists():
            return None
        status = file.stat()
        return FileFacts(
            file.read_bytes(),
            status.st_mode & 0o7777,
            (status.st_uid, status.st_gid),
            status.st_ino,
            status.st_mtime_ns,
        )

    def records(self, text: str, database: str = "configuration") -> Path:
        """Make a database of these lines; return its file."""
        return self.write(f"home/e-smith/db/{database}", text)

    def database(self, name: str = "configuration") -> Database:
        """Return a database of this machine."""
        return Database(self.paths.database(name))

    def fragment(self, target: str, name: str, text: str) -> Path:
        """Give a target a fragment in the site's layer; return its path."""
        return self.write(f"etc/smeconf/templates-custom/{target}/{name}", text)

    def expand(self, target: str, event: str = "") -> str:
        """Return the text of a target, expanded on the databases as they are."""
        snapshot = Snapshot(self.paths)
        return Expander(Layers(self.paths), snapshot, event).expand(target).text

    def event(
        self,
        name: str,
        targets: Sequence[str] = (),
        actions: Mapping[str, str] | None = None,
        services: Mapping[str, str] | None = None,
    ) -> None:
        """Give the site an event; ``actions`` are shell scripts by their names."""
        place = f"etc/smeconf/events/{name}"
        self.path(place).mkdir(parents=True, exist_ok=True)
        for target in targets:
            self.write(f"{place}/templates2expand/{target}", "")
        for entry, script in (actions or {}).items():
            self.write(f"{place}/{entry}", f"#!/bin/sh\n{script}\n", 0o755)
        for service, action in (services or {}).items():
            self.write(f"{place}/services2adjust/{service}", action + "\n")

    def signal(self, event: str, *arguments: str) -> list[str]:
        """Run an event in this process; return what it said.

        Raises what ``Run.apply`` raises.
        """
        report = Notices()
        found = find_event(event, self.paths)
        Run(found, list(arguments), self.paths, System(), report).apply()
        return report.said


class Notices(Report):
    """Collects the notices of a run."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def notice(self, text: str) -> None:
        self.said.append(text)


Answer = bytes | None | Mapping[str, object]


class FakeDaemon:
    """A control socket as the filter has one, and a port that greets.

    ``answer`` makes each answer: fields that differ from those of a filter that serves
    what is installed (None: the field is missing), or the bytes to send before the
    socket is closed; None: nothing is sent, and the connection stays open until the
    end.

    ``greetings`` are sent to one SMTP connection each, the last one to all others;
    empty: the connection is reset, None: it stays open and silent.
    """

    def __init__(
        self,
        machine: Machine,
        answer: Callable[[str], Answer] = lambda request: {},
        greetings: Sequence[bytes | None] = (b"220 mx.test ESMTP\r\n",),
    ) -> None:
        self.requests: list[str] = []
        self.heard: list[bytes] = []
        self._machine = machine
        self.answer = answer
        self._greetings = list(greetings)
        self._held: list[socket.socket] = []
        directory = machine.path("run/qpsmtpd")
        directory.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        # Through a descriptor, since tmp_path may be longer than an address holds.
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._listener.bind(f"/proc/self/fd/{folder}/control")
        finally:
            os.close(folder)
        self._listener.listen()
        self._smtp = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._smtp.getsockname()[1]
        self._threads = [
            threading.Thread(target=self._serve),
            threading.Thread(target=self._greet),
        ]

    def __enter__(self) -> FakeDaemon:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for listener in (self._listener, self._smtp):
            with suppress(OSError):  # the filter was told to stop
                listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(SECONDS)
        for connection in [*self._held, self._listener, self._smtp]:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            request = connection.recv(1024).decode().strip()
            self.requests.append(request)
            answer = self.answer(request)
            if answer is None:
                self._held.append(connection)
                continue
            if request == "stop":
                self._listener.shutdown(socket.SHUT_RDWR)
            data = answer if isinstance(answer, bytes) else self._whole(answer)
            with suppress(OSError):  # the caller waits no longer
                connection.sendall(data)
            connection.close()

    def _whole(self, changes: Mapping[str, object]) -> bytes:
        """Return the answer of a filter that serves what is installed, changed."""
        file = self._machine.path("var/service/qpsmtpd/config.generation")
        answer = {
            "ok": True,
            "error": "",
            "generation": 2,
            "listen": [f"127.0.0.1:{self.port}"],
            "configuration": json.loads(file.read_text())["id"]
            if file.exists()
            else "",
            **changes,
        }
        known = {name: value for name, value in answer.items() if value is not None}
        return json.dumps(known).encode() + b"\n"

    def _greet(self) -> None:
        while True:
            try:
                client, _ = self._smtp.accept()
            except OSError:
                return
            greeting = (
                self._greetings.pop(0)
                if len(self._greetings) > 1
                else self._greetings[0]
            )
            if greeting is None:
                self._held.append(client)
                continue
            client.settimeout(SECONDS)
            with client:
                if not greeting:
                    # With nothing left to linger for, closing resets.
                    linger = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    continue
                with suppress(OSError):
                    client.sendall(greeting)
                    self.heard.append(client.recv(1024))
