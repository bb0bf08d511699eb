"""Where log lines go: standard error, a file, syslog, the journal.

None of them ever raises, or waits for longer than a moment: a log that cannot be
written does not stop the mail.  Lines that were lost are counted, and that is said
when it can be.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from typing import Protocol

# How long a line waits for a reader that is slow; one that is stuck is waited for once.
_WAIT_MS = 200
_MAX_DATAGRAM_BYTES = 8192
_RECONNECT_SECONDS = 1.0
_FACILITY_MAIL = 2 << 3
_WARNING = 4
_LOWEST = 7


class Target(Protocol):
    """What takes lines that hold no control characters but tabs."""

    def write(self, level: int, line: str) -> None:
        """Write a line of a level: 3 errors … 7 debugging, as syslog's."""

    def tick(self) -> None:
        """Look whether all is well; called now and then."""

    def reopen(self) -> None:
        """Let go of a file that was moved away."""


class Stream:
    """Standard error, or another descriptor.

    ``has_levels``: each line begins with its level as ``<4>``, for systemd's journal.
    """

    def __init__(self, file: int = 2, *, has_levels: bool = False) -> None:
        self._file = file
        self._opened: int | None = None
        self._socket: socket.socket | None = None
        self._has_levels = has_levels
        self._rest = b""
        self._lost = 0
        self._is_stuck = False

    def never_wait(self) -> None:
        """Have no write block, if the stream is of a kind that can.

        The descriptor's own flags are let alone: others use it too.
        """
        try:
            mode = os.fstat(self._file).st_mode
            if stat.S_ISSOCK(mode):
                self._socket = socket.socket(fileno=os.dup(self._file))
            elif stat.S_ISFIFO(mode) or os.isatty(self._file):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._opened = os.open(f"/proc/self/fd/{self._file}", flags)
                self._file = self._opened
        except OSError:
            pass  # somebody else's terminal: then it may block

    def write(self, level: int, line: str) -> None:
        """See Target."""
        self.tick()
        data = self._encode(level, line)
        if self._lost:
            data = self._encode(_WARNING, _lost_text(self._lost)) + data
        self._lost = 0 if self._begin(data) else self._lost + 1

    def tick(self) -> None:
        """See Target."""
        if self._rest:
            self._rest = self._push(self._rest)

    def reopen(self) -> None:
        """See Target; a stream stays what it is."""

    def close(self) -> None:
        """Let go of what ``never_wait`` opened."""
        if self._socket is not None:
            self._socket.close()
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None

    def _encode(self, level: int, line: str) -> bytes:
        prefix = f"<{min(level, _LOWEST)}>" if self._has_levels else ""
        return f"{prefix}{line}\n".encode()

    def _begin(self, data: bytes) -> bool:
        """Write a line, or so much of it as goes now; return False for nothing."""
        if self._rest:
            return False
        left = self._push(data)
        if len(left) == len(data):
            return False
        self._rest = left
        return True

    def _push(self, data: bytes) -> bytes:
        """Return what could not be written."""
        while data:
            try:
                data = data[self._send(data) :]
                self._is_stuck = False
            except BlockingIOError:
                if not self._is_writable_soon():
                    break
            except OSError:
                break
        return data

    def _send(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return os.write(self._file, data)

    def _is_writable_soon(self) -> bool:
        if self._is_stuck:
            return False
        poll = select.poll()
        poll.register(self._file, select.POLLOUT)
        self._is_stuck = not poll.poll(_WAIT_MS)
        return not self._is_stuck


class File:
    """A file that lines are appended to; each begins with the local time, unless
    ``has_times`` is false.

    Raises OSError where it cannot be opened at first.
    """

    def __init__(self, path: str, *, has_times: bool = True) -> None:
        self.path = path
        self._has_times = has_times
        self._second = 0
        self._stamp = ""
        self._lost = 0
        self._file = open_log(path)

    def write(self, level: int, line: str) -> None:
        """See Target."""
        text = f"{self._time()}{line}\n"
        if self._lost and self._has_times:
            # Behind a line that may have been cut off.
            text = f"\n{self._time()}{_lost_text(self._lost)}\n{text}"
        elif self._lost:
            text = "\n" + text
        data = text.encode()
        try:
            is_whole = os.write(self._file, data) == len(data)
        except OSError:
            is_whole = False
        self._lost = 0 if is_whole else self._lost + 1

    def tick(self) -> None:
        """See Target."""
        try:
            if os.path.samestat(os.stat(self.path), os.fstat(self._file)):
                return
        except OSError:
            pass  # it was moved away
        self.reopen()

    def reopen(self) -> None:
        """See Target.  Where there can be no new file, the old one is written on."""
        try:
            new = open_log(self.path)
        except OSError:
            return
        self.close()
        self._file = new

    def close(self) -> None:
        """Let go of the file; what is written behind that is lost."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _time(self) -> str:
        if not self._has_times:
            return ""
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            local = time.localtime(now)
            self._stamp = time.strftime("%Y-%m-%d %H:%M:%S", local)
        return f"{self._stamp}.{int(now % 1 * 1e6):06d} "


class Syslog:
    """The socket of a syslog daemon, at ``path``."""

    def __init__(self, path: str, tag: str = "qpsmtpd") -> None:
        self._path = path
        self._tag = tag
        self._socket: socket.socket | None = None
        self._retry_at = 0.0
        self._lost = 0
        self._second = 0
        self._stamp = ""

    def write(self, level: int, line: str) -> None:
        """See Target."""
        if self._lost:
            text = _lost_text(self._lost)
            if self._send(self._datagram(_WARNING, text)):
                self._lost = 0
        if self._lost or not self._send(self._datagram(level, line)):
            self._lost += 1

    def tick(self) -> None:
        """See Target."""

    def reopen(self) -> None:
        """See Target."""
        self._close()
        self._retry_at = 0.0

    def _datagram(self, level: int, line: str) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second = now
            # RFC 3164, 4.1.2
            self._stamp = time.strftime("%b %e %H:%M:%S", time.localtime(now))
        priority = _FACILITY_MAIL | min(level, _LOWEST)
        text = f"<{priority}>{self._stamp} {self._tag}[{os.getpid()}]: {line}"
        data = text.encode()
        if len(data) <= _MAX_DATAGRAM_BYTES:
            return data
        return data[:_MAX_DATAGRAM_BYTES].decode("utf-8", "ignore").encode()

    def _send(self, datagram: bytes) -> bool:
        for _ in range(2):  # again, where the daemon was started anew
            if self._socket is None and not self._connect():
                return False
            assert self._socket is not None
            try:
                self._socket.send(datagram)
                return True
            except BlockingIOError:
                return False  # it does not read
            except OSError:
                self._close()
        return False

    def _connect(self) -> bool:
        now = time.monotonic()
        if now < self._retry_at:
            return False
        folder, name = os.path.split(self._path)
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            # Through a descriptor: a path may be longer than a socket address holds.
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                opened.connect(f"/proc/self/fd/{directory}/{name}")
            finally:
                os.close(directory)
        except OSError:
            opened.close()
            self._retry_at = now + _RECONNECT_SECONDS
            return False
        self._socket = opened
        return True

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def open_log(path: str) -> int:
    """Open a log file to append to; a new one has mode 0640 from the beginning.

    Raises OSError, also for what is no file of its own: a link, a pipe.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o640)
        os.fchmod(file, 0o640)  # whatever the mask
    except FileExistsError:
        file = os.open(path, flags)
    facts = os.fstat(file)
    if not stat.S_ISREG(facts.st_mode):
        os.close(file)
        raise OSError(0, "is not a file to log to", path)
    return file


def _lost_text(count: int) -> str:
    return f"{os.getpid()} log: {count} line{'s' * (count > 1)} could not be written"
