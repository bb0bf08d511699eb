"""A whole gateway under a root of its own: its commands, its filter, its clients."""

from __future__ import annotations

import os
import selectors
import signal
import smtplib
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

COMMANDS = Path(sys.executable).parent


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Gateway:
    """A root that is set up to accept mail for local.test into a Maildir.

    ``commands`` is the directory of the installed commands.  Leaving the context stops
    the filter, and fails where it did not end well.
    """

    def __init__(self, root: Path, commands: Path = COMMANDS) -> None:
        self.root = root
        self.port = free_port()
        self.maildir = root / "Maildir"
        self.log_path = root / "log"
        self._commands = commands
        self._filter: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Gateway:
        self.run("config", "set", "SystemName", "mail")
        self.run("config", "set", "DomainName", "local.test")
        self.run("db", "domains", "set", "local.test", "domain")
        self.setprop(
            TCPPort=str(self.port),
            BindAddress="127.0.0.1",
            QueueMethod="maildir",
            QueueTarget=str(self.maildir),
            DNSServers="127.0.0.1@9",
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._filter is not None:
            status = self.stop()
            assert status == 0 or error is not None, self.log()

    def run(
        self, *words: str, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; with ``check`` it must succeed."""
        result = subprocess.run(
            [str(self._commands / words[0]), *words[1:]],
            input=text,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert not check or result.returncode == 0, result.stderr
        return result

    @property
    def environment(self) -> dict[str, str]:
        """What the commands are run with: no variable of the tester's own."""
        path = os.environ.get("PATH", os.defpath)
        return {
            "SMECONF_ROOT": str(self.root),
            "PATH": f"{self._commands}{os.pathsep}{path}",
        }

    def setprop(self, **properties: str) -> None:
        """Set properties of qpsmtpd."""
        words = [word for pair in properties.items() for word in pair]
        self.run("config", "setprop", "qpsmtpd", *words)

    def email_update(self, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the event email-update."""
        return self.run("signal-event", "email-update", check=check)

    def up(self) -> None:
        """Start the filter by ``smeconf up``, and wait until it serves."""
        with self.log_path.open("ab") as log:
            self._filter = subprocess.Popen(
                [str(self._commands / "smeconf"), "up"],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.wait_for("serving on")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the filter; return its exit status."""
        assert self._filter is not None
        process, self._filter = self._filter, None
        process.send_signal(number)
        status = process.wait(timeout=30)
        assert process.stdout is not None
        process.stdout.close()
        return status

    @property
    def is_running(self) -> bool:
        """Whether the filter runs."""
        return self._filter is not None and self._filter.poll() is None

    def wait_until_ended(self) -> int:
        """Wait for a filter that ends by itself; return its exit status."""
        assert self._filter is not None
        process, self._filter = self._filter, None
        assert process.stdout is not None
        with process.stdout:
            return process.wait(timeout=30)

    def log(self) -> str:
        """Return what the filter logged so far."""
        return self.log_path.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 30.0) -> str:
        """Wait for a line with ``text`` in the log; return the line."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.log().splitlines():
                if text in line:
                    return line
            assert self.is_running, self.log()
            selectors.DefaultSelector().select(0.02)
        raise AssertionError(f"no {text!r} in the log:\n{self.log()}")

    def client(self, source: str = "127.9.8.7") -> smtplib.SMTP:
        """Return a client that has connected from an address of 127/8."""
        return smtplib.SMTP(
            "127.0.0.1",
            self.port,
            local_hostname="client.example",
            timeout=30,
            source_address=(source, 0),
        )

    def send(self, source: str = "127.9.8.7", subject: str = "a test") -> None:
        """Send a message; raises smtplib's exceptions where it is refused."""
        message = f"From: ann@example.org\r\nSubject: {subject}\r\n\r\nhello\r\n"
        with self.client(source) as client:
            client.sendmail("ann@example.org", ["user@local.test"], message)

    def delivered(self) -> list[str]:
        """Return the messages that lie in the Maildir."""
        folder = self.maildir / "new"
        return (
            [path.read_text() for path in folder.iterdir()] if folder.exists() else []
        )

    def config_files(self) -> dict[str, tuple[bytes, int]]:
        """Return content and inode of every generated file."""
        directory = self.root / "var/service/qpsmtpd/config"
        return {
            str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_ino)
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
