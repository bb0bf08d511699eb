"""One event at a time, and one run for all who want the same.

A caller waits for the lock.  When its turn comes and a run of the same event began
after it had asked, that run has seen all it had changed: the caller takes its result.
``CLOCK_MONOTONIC`` is the same for all processes of a boot: times can be compared.

An event that is signalled by another one's action is part of that one, and takes no
lock.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

from filelock import FileLock, Timeout

from smeconf.paths import Paths
from smeconf.system import FileState, System

# The variable by which an action's children know that their event is running.
OUTER = "SMECONF_OUTER_EVENT"
# Waiting less than this is not worth a word.
_PATIENCE_SECONDS = 0.3
_POLL_SECONDS = 0.02


class TurnError(Exception):
    """A turn that cannot be waited for: no lock can be taken."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: an empty ``fault`` is success.

    ``began`` is in nanoseconds since the boot named by ``boot``; ``revisions`` are
    those of the databases that were last applied with success.
    """

    arguments: Sequence[str]
    databases: Mapping[str, str]
    boot: str
    began: int
    fault: str
    pid: int
    with_services: bool
    revisions: Mapping[str, int] = field(default_factory=dict)


class Turn:
    """The turn of one caller; a context manager that waits for it."""

    def __init__(
        self,
        event: str,
        arguments: Sequence[str],
        paths: Paths,
        system: System,
        say: Callable[[str], None],
    ) -> None:
        self._event = event
        self._arguments = list(arguments)
        self._paths = paths
        self._system = system
        self._say = say
        self._asked = time.monotonic_ns()
        self._began = self._asked
        # For nobody else: who can open it can hold it, and events with it.
        self._lock = FileLock(os.path.join(paths.state, "event.lock"), mode=0o600)
        self._running = os.path.join(paths.state, "event.running")
        self.depth = 0

    def __enter__(self) -> Self:
        try:
            os.makedirs(self._paths.state, exist_ok=True)
            if self._take_lock():
                self._await_stragglers()
                self._began = time.monotonic_ns()
                self._note_running()
            else:
                self._lock = self._inner_lock(self.depth)
                self._lock.acquire()
        except OSError as error:
            self._lock.release()
            where = error.filename or self._paths.state
            raise TurnError(f"{where}: cannot be written: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if not self.depth:
            try:
                self._system.remove(self._running)
            except OSError:
                pass  # it means nothing once the lock is free
        self._lock.release()

    def environment(self) -> dict[str, str]:
        """Return what tells the children of this run that they are part of it."""
        return {OUTER: f"{_outer() if self.depth else os.getpid()}.{self.depth}"}

    def shared(self, *, with_services: bool) -> Outcome | None:
        """Return the result of a run that began after this caller had asked.

        ``with_services``: only of one that has told them.
        """
        outcome = find_outcome(self._event, self._paths, self._system)
        if (
            outcome is not None
            and not self.depth
            and outcome.boot == _boot()
            and outcome.began > self._asked
            and (outcome.with_services or not with_services)
            and list(outcome.arguments) == self._arguments
            and outcome.databases == _databases()
        ):
            return outcome
        return None

    def finish(
        self, fault: str, revisions: Mapping[str, int] | None, *, with_services: bool
    ) -> None:
        """Note how this run ended; ``revisions`` None: nothing was applied."""
        if revisions is None:
            last = find_outcome(self._event, self._paths, self._system)
            revisions = last.revisions if last else {}
        outcome = Outcome(
            arguments=self._arguments,
            databases=_databases(),
            boot=_boot(),
            began=self._began,
            fault=fault,
            pid=os.getpid(),
            with_services=with_services,
            revisions=dict(revisions),
        )
        path = _outcome_path(self._event, self._paths)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._put(path, json.dumps(asdict(outcome)))
        except OSError:
            pass  # who waited for this run makes one of his own

    def _take_lock(self) -> bool:
        """Take the lock, when it is this one's turn; not within an outer event."""
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            outer = _outer()
            if outer is not None and self._find_running().get("pid") == outer:
                self.depth = _outer_depth() + 1
                return False
            self._wait()
        return True

    def _inner_lock(self, depth: int | str) -> FileLock:
        """Return the lock of events within an event: an action may signal several."""
        path = os.path.join(self._paths.state, f"event.{depth}.lock")
        return FileLock(path, mode=0o600)

    def _await_stragglers(self) -> None:
        """Wait for inner events that an action left running when its own one ended."""
        for name in sorted(os.listdir(self._paths.state)):
            event, _, depth = name.removesuffix(".lock").partition(".")
            if event == "event" and depth.isdigit() and name.endswith(".lock"):
                with self._inner_lock(depth):
                    pass

    def _wait(self) -> None:
        began = time.monotonic()
        is_told = False
        while True:
            try:
                self._lock.acquire(_PATIENCE_SECONDS, poll_interval=_POLL_SECONDS)
                return
            except Timeout:
                if not is_told and time.monotonic() - began >= _PATIENCE_SECONDS:
                    self._say(self._whom_we_wait_for())
                    is_told = True

    def _whom_we_wait_for(self) -> str:
        running = self._find_running()
        if not running:
            return "waiting for another event"
        event, pid, since = (running.get(key) for key in ("event", "pid", "since"))
        return f"waiting for {event} (process {pid}, since {since})"

    def _find_running(self) -> dict[str, object]:
        try:
            with open(self._running, "rb") as file:
                found = json.load(file)
        except (OSError, ValueError):
            return {}
        # One that was killed has left it behind.
        is_alive = isinstance(found, dict) and _is_alive(found.get("pid"))
        return found if is_alive else {}

    def _note_running(self) -> None:
        table = {
            "event": self._event,
            "pid": os.getpid(),
            "since": time.strftime("%H:%M:%S"),
        }
        self._put(self._running, json.dumps(table))

    def _put(self, path: str, text: str) -> None:
        """Write a file whole, but not durably: nothing is lost with it."""
        state = FileState(text.encode(), 0o600, os.geteuid(), os.getegid())
        beside = f"{path}.{os.getpid()}.new"
        self._system.write(beside, state)
        self._system.rename(beside, path)


def find_outcome(event: str, paths: Paths, system: System) -> Outcome | None:
    """Return how an event last ended; None where it never ran, or that was lost."""
    try:
        state = system.find(_outcome_path(event, paths))
        return Outcome(**json.loads(state.data)) if state else None
    except (OSError, ValueError, TypeError):
        return None


def _outcome_path(event: str, paths: Paths) -> str:
    return os.path.join(paths.state, "runs", event)


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _databases() -> dict[str, str]:
    """Return what says that this caller means other databases than most."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == "DBPATH" or name.startswith("ESMITH_")
    }


def _is_alive(pid: object) -> bool:
    return isinstance(pid, int) and os.path.exists(f"/proc/{pid}")


def _outer() -> int | None:
    pid = os.environ.get(OUTER, "").partition(".")[0]
    return int(pid) if pid.isdigit() else None


def _outer_depth() -> int:
    depth = os.environ.get(OUTER, "").partition(".")[2]
    return int(depth) if depth.isdigit() else 0
