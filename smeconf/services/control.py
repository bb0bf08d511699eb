"""The control socket of our filter, from the caller's side: a line out, JSON back."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from smeconf.paths import Paths
from smeconf.services.service import ServiceError

# A reload starts workers and waits for them.
ANSWER_SECONDS = 60.0


class Control:
    """The control socket of service ``name``."""

    def __init__(self, name: str, paths: Paths) -> None:
        self._name = name
        self._path = os.path.join(paths.service_run(name), "control")

    def ask(self, request: str, seconds: float | None = None) -> dict[str, Any] | None:
        """Return the filter's answer to ``request``; None where it does not run.

        The answer holds ``ok``, true or false.  ``seconds`` is the longest silence.
        Raises ServiceError where it runs and does not answer.
        """
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(ANSWER_SECONDS if seconds is None else seconds)
            try:
                self._connect(caller)
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            except OSError as error:
                raise ServiceError(
                    f"{self._path}: {error.strerror or error}"
                ) from error
            try:
                caller.sendall(request.encode() + b"\n")
                return _parsed(_line(caller))
            except (OSError, ValueError) as error:
                raise ServiceError(
                    f"{self._name} did not answer {request}: {error}"
                ) from error

    def _connect(self, caller: socket.socket) -> None:
        """Connect to a path that may be longer than a socket address holds."""
        folder, name = os.path.split(self._path)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            caller.connect(f"/proc/self/fd/{directory}/{name}")
        finally:
            os.close(directory)


def _line(caller: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"\n") and (piece := caller.recv(65536)):
        answer += piece
    return answer


def _parsed(answer: bytes) -> dict[str, Any]:
    """Return an answer; ValueError for what is none: it is never taken for consent."""
    read = json.loads(answer) if answer else None
    if not isinstance(read, dict) or not isinstance(read.get("ok"), bool):
        raise ValueError(f"it said {answer[:60]!r}")
    return read
