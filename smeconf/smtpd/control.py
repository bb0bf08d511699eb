"""The master's process id file, and the socket beside it that takes orders.

A caller sends one line and gets one line of JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable
from typing import Self

from smeconf.smtpd.config import ConfigError

_CALLER_SECONDS = 5.0
_MAX_REQUEST_BYTES = 1024


class PidFile:
    """The process id file, locked as long as the master lives."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._file = open(self._path, "a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            pid = self._file.read().strip()
            self._file.close()
            raise ConfigError(f"{self._path}: already running, process {pid}") from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def remove(self) -> None:
        """Remove the file: the master ends."""
        _remove(self._path)

    def fileno(self) -> int:
        """Return the descriptor that holds the lock."""
        return self._file.fileno()


class Control:
    """The control socket; whoever may write to it steers the filter: its user, root."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._caller: socket.socket | None = None

    def __enter__(self) -> Self:
        _remove(self._path)  # of one that was killed: the process id file is ours
        self._socket = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            _bind(self._socket, self._path)
        finally:
            os.umask(mask)
        self._socket.listen(16)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable when a caller is there."""
        return self._socket.fileno()

    def answer(self, obey: Callable[[str], dict[str, object]]) -> None:
        """Answer one caller with what ``obey`` makes of its request."""
        caller, _ = self._socket.accept()
        self._caller = caller
        with caller:
            caller.settimeout(_CALLER_SECONDS)
            try:
                request = b""
                while not request.endswith(b"\n") and len(request) < _MAX_REQUEST_BYTES:
                    piece = caller.recv(_MAX_REQUEST_BYTES)
                    if not piece:
                        break
                    request += piece
                answer = json.dumps(obey(request.decode().strip()))
                caller.sendall(answer.encode() + b"\n")
            except (OSError, UnicodeDecodeError):
                pass  # the caller is gone, or none of ours
        self._caller = None

    def close_in_worker(self) -> None:
        """Let go of socket and caller, who waits for the end of its answer."""
        self._socket.close()
        if self._caller is not None:
            self._caller.close()

    def remove(self) -> None:
        """Remove the socket's name: the master ends."""
        _remove(self._path)


def _bind(control: socket.socket, path: str) -> None:
    """Bind to a path that may be longer than a socket address holds."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        control.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
