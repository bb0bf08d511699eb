"""What is said and kept of an event.

To people: progress where they watch at a terminal, notices always.  To ``var/log/
smeconf/events.log``, and to syslog (``local1.info``, tag ``esmith::event``) on a
machine's own root: SME's lines, one when the event begins, one when an action begins
and one of fields when it ended.  To ``events.json``: one object a step.

A log that cannot be written never fails an event.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from smeconf.paths import Paths

_SYSLOG_SOCKET = "/dev/log"
_LOCAL1_INFO = 17 * 8 + 6
TAG = "esmith::event"


class Report:
    """Who hears of a run; this one hears nothing."""

    def notice(self, text: str) -> None:
        """Hear what an administrator must know, whoever ran the event."""

    def changed(self, target: str) -> None:
        """Hear of a file that was made, changed or removed."""

    def begin(self, text: str) -> None:
        """Hear what is done now."""

    def done(self, text: str, seconds: float) -> None:
        """Hear how long it took."""


class EventLog:
    """The log of one run of an event."""

    def __init__(
        self, event: str, arguments: Sequence[str], paths: Paths, report: Report
    ) -> None:
        self._report = report
        self.is_kept = True  # False: nothing is written, only reported
        self._event = event
        self._arguments = list(arguments)
        self._directory = paths.under("var/log/smeconf")
        self._has_syslog = paths.root == "/" and os.path.exists(_SYSLOG_SOCKET)
        self._run = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}"

    def begin(self) -> None:
        """Note that the event begins."""
        self._lines([f"Processing event: {' '.join((self._event, *self._arguments))}"])
        self._object("begin", arguments=self._arguments)

    def say(self, text: str) -> None:
        """Note lines of text, such as what a program said."""
        self._lines(text.splitlines())

    @contextmanager
    def step(self, kind: str, text: str, **fields: object) -> Iterator[None]:
        """Note a step within a handler, with its time, and report it."""
        self._report.begin(text)
        began = time.monotonic()
        fault = True
        try:
            yield
            fault = False
        finally:
            seconds = time.monotonic() - began
            self._object(kind, **fields, failed=fault, seconds=round(seconds, 6))
            self._report.done(text, seconds)

    def changed(self, targets: Sequence[str]) -> None:
        """Report files that were made, changed or removed."""
        for target in targets:
            self._report.changed(target)

    def notice(self, text: str) -> None:
        """Note what an administrator must know, and report it."""
        self._lines([text])
        self._object("notice", text=text)
        self._report.notice(text)

    @contextmanager
    def handler(self, name: str, path: str) -> Iterator[None]:
        """Note that a handler of the event runs, and how it ended.

        ``path`` is that of its program, empty where it is none.
        """
        self._lines([f"Running event handler: {path or name}"])
        began = time.time()
        status = 0
        try:
            yield
        except BaseException:
            status = 1
            raise
        finally:
            ended = time.time()
            fields = f"action|Event|{self._event}|Action|{name}"
            fields += f"|Start|{_stamp(began)}|End|{_stamp(ended)}"
            fields += f"|Elapsed|{ended - began:.6f}"
            self._lines([fields + (f"|Status|{status}" if status else "")])
            self._object(
                "action", action=name, status=status, seconds=round(ended - began, 6)
            )

    def end(self, status: int, fault: str, seconds: float) -> None:
        """Note how the event ended."""
        if fault:
            self._lines(fault.splitlines())
        self._object("end", status=status, fault=fault, seconds=round(seconds, 6))

    def _lines(self, lines: Sequence[str]) -> None:
        # What a program says must not forge a line of ours, nor move a terminal.
        if not self.is_kept:
            return
        clean = [_printable(line) for line in lines]
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        prefix = f"{stamp} {TAG}[{os.getpid()}]: "
        self._append("events.log", "".join(f"{prefix}{line}\n" for line in clean))
        if self._has_syslog:
            _to_syslog(clean)

    def _object(self, step: str, **fields: object) -> None:
        if not self.is_kept:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        table = {"time": f"{stamp}.{int(now % 1 * 1e6):06d}Z", "run": self._run}
        line = {**table, "event": self._event, "step": step, **fields}
        self._append("events.json", json.dumps(line) + "\n")

    def _append(self, name: str, text: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            os.makedirs(self._directory, exist_ok=True)
            file = os.open(os.path.join(self._directory, name), flags, 0o640)
        except OSError:
            return
        try:
            os.write(file, text.encode("utf-8", "surrogateescape"))
        except OSError:
            pass
        finally:
            os.close(file)


def _stamp(seconds: float) -> str:
    """Return a time as SME's log has it: seconds and microseconds."""
    return f"{int(seconds)} {int(seconds % 1 * 1e6)}"


def _printable(line: str) -> str:
    return "".join(
        one if one.isprintable() or one == "\t" else f"\\x{ord(one):02x}"
        for one in line
    )


def _to_syslog(lines: Sequence[str]) -> None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.setblocking(False)
            log.connect(_SYSLOG_SOCKET)
            for line in lines:
                log.send(f"<{_LOCAL1_INFO}>{TAG}[{os.getpid()}]: {line}".encode())
    except OSError:
        pass
