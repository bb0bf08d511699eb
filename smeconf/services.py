"""Services: what an event tells them, and how.

Our filter is steered through the socket beside its process id file, which answers: the
event knows whether the new configuration serves, not only that a signal was sent.
"""

from __future__ import annotations

import json
import os
import socket

from smeconf.paths import Paths

# A reload starts workers and waits for them.
_ANSWER_SECONDS = 60.0

# What SME's words mean for our filter: none of them cuts a connection.
_RELOADING = frozenset(
    {"restart", "reload", "adjust", "graceful", "sighup", "sigterm", "sigusr1"}
    | {"start", "up", "try-restart", "reload-or-restart", "reload-or-try-restart"}
)
_STOPPING = frozenset({"stop", "down"})


class ServiceError(Exception):
    """A service that did not do what it was told; says why in one line."""


class OwnDaemon:
    """A service that is our own filter, run by hand or by a supervisor."""

    def __init__(self, name: str, paths: Paths) -> None:
        self.name = name
        self._control = os.path.join(paths.service_run(name), "control")

    def adjust(self, action: str, is_enabled: bool) -> str:
        """Do what an event asks; return what there is to say, often nothing.

        Raises ServiceError where the service refuses or does not answer.
        """
        if action not in _RELOADING | _STOPPING:
            raise ServiceError(f"{self.name}: no action {action}")
        if not is_enabled or action in _STOPPING:
            answer = self._ask("stop")
            why = "is disabled" if not is_enabled else "was told to stop"
            return f"{self.name} {why}: it stops" if answer else ""
        answer = self._ask("reload")
        if answer is None:
            return f"{self.name} is not running: what was installed waits for it"
        if not answer["ok"]:
            raise ServiceError(
                f"{self.name} keeps its old configuration: {answer.get('error')}"
            )
        return ""

    def _ask(self, request: str) -> dict[str, object] | None:
        """Return the daemon's answer; None where it does not run."""
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(_ANSWER_SECONDS)
            try:
                self._connect(caller)
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            except OSError as error:
                raise ServiceError(f"{self._control}: {error.strerror}") from error
            try:
                caller.sendall(request.encode() + b"\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    piece = caller.recv(65536)
                    if not piece:
                        break
                    answer += piece
                read = json.loads(answer) if answer else None
                if not isinstance(read, dict) or not isinstance(read.get("ok"), bool):
                    raise ValueError(f"it said {answer[:60]!r}")
                return read
            except (OSError, ValueError) as error:
                raise ServiceError(
                    f"{self.name} did not answer {request}: {error}"
                ) from error

    def _connect(self, caller: socket.socket) -> None:
        """Connect to a path that may be longer than a socket address holds."""
        directory = os.open(
            os.path.dirname(self._control), os.O_RDONLY | os.O_DIRECTORY
        )
        try:
            name = os.path.basename(self._control)
            caller.connect(f"/proc/self/fd/{directory}/{name}")
        finally:
            os.close(directory)


def find_service(name: str, paths: Paths) -> OwnDaemon:
    """Return the maker that steers a service.

    Raises ServiceError for a service that nothing here can steer.
    """
    if name != "qpsmtpd":
        raise ServiceError(f"{name}: no way is known to steer this service")
    return OwnDaemon(name, paths)
