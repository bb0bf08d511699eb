"""The worker processes, from the master's side: started, told, reaped, replaced.

A worker belongs to a generation, that of its configuration.  What it counts lies in
its slot of shared memory, which is cleared when it has ended, however it ended.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from smeconf.smtpd import worker
from smeconf.smtpd.admission import AdmissionLimits
from smeconf.smtpd.loader import Configuration
from smeconf.smtpd.log import ERROR
from smeconf.smtpd.slots import NoSlotLeft, Slots
from smeconf.smtpd.stats import Stats
from smeconf.smtpd.tally import Tally

# How long new workers may take to be ready, and old ones to stop accepting.
START_SECONDS = 30.0
DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Crew:
    """What the workers of a generation begin with."""

    generation: int
    configuration: Configuration
    limits: AdmissionLimits
    listeners: Sequence[socket.socket]

    @property
    def size(self) -> int:
        """How many workers serve."""
        return self.configuration.settings.workers or os.cpu_count() or 1


@dataclass(eq=False)
class Worker:
    """A worker process."""

    pid: int
    channel: socket.socket
    generation: int
    slot: int
    started: float = field(default_factory=time.monotonic)


class Workforce:
    """All workers.

    ``let_go`` is called in each new one, with its listeners, to close what is the
    master's alone.
    """

    def __init__(self, let_go: Callable[[Sequence[socket.socket]], None]) -> None:
        self.tally = Tally()
        self.stats = Stats()
        self._slots = Slots(self.tally.count)
        self._let_go = let_go
        self._workers: dict[int, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(sorted(self._workers.values(), key=lambda one: one.pid))

    def __bool__(self) -> bool:
        return bool(self._workers)

    def start(self, crew: Crew) -> str:
        """Start the workers of a generation and wait until all are ready.

        Returns an empty text, or why there is none of them.
        """
        started: list[Worker] = []
        fault = ""
        try:
            for _ in range(crew.size):
                started.append(self.fork(crew))
        except (NoSlotLeft, OSError) as error:
            fault = f"a worker cannot be started: {error}"
        deadline = time.monotonic() + START_SECONDS
        if not fault and all(_hears(one, worker.READY, deadline) for one in started):
            return ""
        for one in started:
            _kill(one.pid)
        return fault or "the new workers did not start; the log says why"

    def fork(self, crew: Crew) -> Worker:
        """Start one worker.  Raises NoSlotLeft, or OSError where none can be had."""
        slot = self._slots.take()
        self.tally.begin(slot)
        self.stats.begin(slot)
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
        except OSError:
            for end in (ours, theirs):
                end.close()
            self._clear(slot)
            raise
        if pid == 0:
            self._work(crew, slot, ours, theirs)
        theirs.close()
        one = self._workers[pid] = Worker(pid, ours, crew.generation, slot)
        return one

    def _work(
        self, crew: Crew, slot: int, ours: socket.socket, theirs: socket.socket
    ) -> None:
        """Be the worker, to the end of the process."""
        status = 1
        try:
            for channel in (ours, *(one.channel for one in self._workers.values())):
                channel.close()
            self._let_go(crew.listeners)
            share = worker.Share(slot, self.tally, self.stats, crew.limits)
            worker.run(crew.configuration, crew.listeners, theirs, share)
            status = 0
        except BaseException:
            for line in traceback.format_exc().splitlines():
                crew.configuration.log.server(ERROR, line)
        finally:
            os._exit(status)

    def drain(self, generation: int) -> None:
        """Have all workers of generations before this one accept no more."""
        old = [one for one in self if one.generation < generation]
        deadline = time.monotonic() + DRAIN_SECONDS
        for one in old:
            _tell(one, worker.DRAIN)
        for one in old:
            _hears(one, worker.DRAIN, deadline)

    def tell(self, message: bytes) -> None:
        """Send a message to every worker."""
        for one in self:
            _tell(one, message)

    def reap(self) -> list[tuple[Worker, int]]:
        """Return the workers that ended, each with its exit status (minus a signal)."""
        ended: list[tuple[Worker, int]] = []
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            one = self._workers.pop(pid, None)
            if one is not None:
                one.channel.close()
                self._clear(one.slot)
                ended.append((one, os.waitstatus_to_exitcode(status)))
        return ended

    def kill(self) -> None:
        """End all by force."""
        for pid in self._workers:
            _kill(pid)

    def _clear(self, slot: int) -> None:
        self.tally.end(slot)
        self.stats.end(slot)
        self._slots.give_back(slot)


def _hears(one: Worker, message: bytes, deadline: float) -> bool:
    """Wait for a message of a worker; False if it is gone or its time is up."""
    try:
        while (left := deadline - time.monotonic()) > 0:
            one.channel.settimeout(left)
            heard = one.channel.recv(1)
            if heard in (message, b""):
                return heard == message
    except OSError:
        pass
    return False


def _tell(one: Worker, message: bytes) -> None:
    try:
        one.channel.send(message)
    except OSError:
        pass  # it died, which SIGCHLD tells


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
