"""The master: owns the listening sockets and the workers that serve on them.

A reload loads the new directory whole.  Good: workers of a new generation start on it,
and when they are ready the old ones accept no more and end with their last session.
Bad: it says why, and all stays as it was.  The sockets stay open throughout, so no
connection is refused; a session that began goes on as it began.

It is steered by signals (SIGHUP reload, SIGTERM and SIGINT stop) and by a socket beside
its process id file, which also answers: a line in (``reload``, ``status``, ``stop``), a
line of JSON out.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field
from types import FrameType

from smeconf.paths import Paths
from smeconf.smtpd import worker
from smeconf.smtpd.config import ConfigError
from smeconf.smtpd.control import Control, PidFile
from smeconf.smtpd.listeners import Address, Identity, open_listener, show
from smeconf.smtpd.loader import Configuration, load
from smeconf.smtpd.log import ERROR, NOTICE, WARNING, Log
from smeconf.smtpd.startup import import_late_modules, prepare

# How long new workers may take to be ready, and old ones to stop accepting.
START_SECONDS = 30.0
_DRAIN_SECONDS = 5.0
# A worker that died is replaced, but one that dies at once not more often than this.
_RESTART_SECONDS = 1.0


@dataclass(eq=False)
class _Worker:
    """A worker process; ``generation`` is that of its configuration."""

    pid: int
    channel: socket.socket
    generation: int
    started: float = field(default_factory=time.monotonic)


class Master:
    """Runs the filter in the foreground on one configuration directory."""

    def __init__(self, directory: str, paths: Paths) -> None:
        self._directory = directory
        self._root = paths.root
        self._run_directory = paths.service_run("qpsmtpd")
        self._pid_file = PidFile(os.path.join(self._run_directory, "qpsmtpd.pid"))
        self._control = Control(os.path.join(self._run_directory, "control"))
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._listeners: dict[Address, socket.socket] = {}
        self._workers: dict[int, _Worker] = {}
        self._restart_at: float | None = None
        self._generation = 0  # the one that serves
        self._started_generations = 0  # those that failed too: no number comes twice
        self._stopping = False
        self._log = Log()

    def run(self) -> int:
        """Serve until told to stop; return the exit status.

        Raises ConfigError where it cannot begin: one line a fault.
        """
        self._configuration = load(self._directory, self._root)
        self._log = self._configuration.log
        for address in self._configuration.settings.listen:
            self._listeners[address] = open_listener(address)
        identity = Identity(self._configuration.settings.user, self._root)
        prepare(self._configuration, identity, self._run_directory)
        import_late_modules()
        identity.assume()
        if identity.missing:
            self._say(
                WARNING, f"user {identity.name} does not exist: running as the caller"
            )
        with self._pid_file, self._control as control:
            self._catch_signals()
            self._selector.register(control, selectors.EVENT_READ, self._answer)
            self._warn()
            # What is loaded is never garbage; and shared with workers if not touched.
            gc.freeze()
            if not self._start_generation(self._configuration, self._listeners):
                raise ConfigError("the workers did not start; the log says why")
            self._say(NOTICE, f"serving on {self._where()}")
            # An install that ended before there was a socket to tell us.
            if self._configuration.directory.has_changed():
                self.reload()
            self._loop()
            self._selector.unregister(control)
            self._stop_workers()
            self._control.remove()
            self._pid_file.remove()
        self._say(NOTICE, "stopped")
        return 0

    def _loop(self) -> None:
        while not self._stopping:
            timeout = None
            if self._restart_at is not None:
                timeout = max(0.0, self._restart_at - time.monotonic())
            for key, _ in self._selector.select(timeout):
                key.data(key.fileobj)
            while self._signals:
                self._on_signal(self._signals.pop(0))
            if self._restart_at is not None and time.monotonic() >= self._restart_at:
                self._replace_missing()

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self.reload()
        elif number == signal.SIGCHLD:
            self._reap()
        else:
            self._say(NOTICE, f"stopping on {signal.Signals(number).name}")
            self._stopping = True

    def reload(self) -> str:
        """Serve new connections on the configuration as it is now on disk.

        Returns an empty text, or why all stays as it was.
        """
        try:
            new = load(self._directory, self._root)
            listeners = self._listeners_for(new)
        except ConfigError as error:
            self._say(ERROR, f"reload refused: {error}")
            return str(error)
        opened = [s for a, s in listeners.items() if a not in self._listeners]
        try:
            identity = Identity("", self._root)
            prepare(new, identity, self._run_directory)
        except ConfigError as error:
            fault = str(error)
        else:
            fault = ""
            if not self._start_generation(new, listeners):
                fault = "the new workers did not start; the log says why"
        if fault:
            for listener in opened:
                listener.close()
            self._say(ERROR, f"reload failed: {fault}")
            return fault
        for address, listener in self._listeners.items():
            if address not in listeners:
                listener.close()
        self._listeners = listeners
        self._configuration, self._log = new, new.log
        self._drain_old()
        self._warn()
        self._say(NOTICE, f"generation {self._generation} serves on {self._where()}")
        return ""

    def _listeners_for(self, new: Configuration) -> dict[Address, socket.socket]:
        """Return the sockets of a configuration, those that are open already kept."""
        listeners: dict[Address, socket.socket] = {}
        try:
            for address in new.settings.listen:
                listeners[address] = self._listeners.get(address) or open_listener(
                    address
                )
        except ConfigError:
            for address, listener in listeners.items():
                if address not in self._listeners:
                    listener.close()
            raise
        return listeners

    def _start_generation(
        self, configuration: Configuration, listeners: dict[Address, socket.socket]
    ) -> bool:
        """Start workers on a configuration and wait until all are ready.

        Returns False, and leaves none of them, where one is not.
        """
        self._started_generations += 1
        generation = self._started_generations
        count = configuration.settings.workers or os.cpu_count() or 1
        started = [
            self._fork(configuration, list(listeners.values()), generation)
            for _ in range(count)
        ]
        deadline = time.monotonic() + START_SECONDS
        if all(_hears(one.channel, worker.READY, deadline) for one in started):
            self._generation = generation
            return True
        for one in started:
            _kill(one.pid)
        return False

    def _fork(
        self,
        configuration: Configuration,
        listeners: list[socket.socket],
        generation: int,
    ) -> _Worker:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._become_worker(ours, listeners)
                worker.run(configuration, listeners, theirs)
                status = 0
            except BaseException:
                for line in traceback.format_exc().splitlines():
                    self._log.server(ERROR, line)
            finally:
                os._exit(status)
        theirs.close()
        one = _Worker(pid, ours, generation)
        self._workers[pid] = one
        return one

    def _become_worker(
        self, channel_of_master: socket.socket, listeners: list[socket.socket]
    ) -> None:
        """Let go, in a new worker, of what is the master's alone."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        for end in (*self._wakeup, channel_of_master):
            end.close()
        for other in self._workers.values():
            other.channel.close()
        # One that is dropped by this reload would still take connections.
        for listener in self._listeners.values():
            if listener not in listeners:
                listener.close()
        self._control.close_in_worker()
        os.close(self._pid_file.fileno())  # with its lock

    def _drain_old(self) -> None:
        """Have all workers of older generations accept no more."""
        old = [w for w in self._workers.values() if w.generation < self._generation]
        deadline = time.monotonic() + _DRAIN_SECONDS
        for one in old:
            _tell(one.channel, worker.DRAIN)
        for one in old:
            _hears(one.channel, worker.DRAIN, deadline)

    def _reap(self) -> None:
        """Take note of workers that ended; have those that died replaced."""
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            one = self._workers.pop(pid, None)
            if one is None:
                continue
            one.channel.close()
            if one.generation == self._generation and not self._stopping:
                code = os.waitstatus_to_exitcode(status)
                how = f"signal {-code}" if code < 0 else f"exit status {code}"
                self._say(ERROR, f"worker {pid} died ({how}), replacing it")
                lived = time.monotonic() - one.started
                delay = 0.0 if lived > _RESTART_SECONDS else _RESTART_SECONDS
                self._restart_at = time.monotonic() + delay

    def _replace_missing(self) -> None:
        self._restart_at = None
        wanted = self._configuration.settings.workers or os.cpu_count() or 1
        serving = sum(w.generation == self._generation for w in self._workers.values())
        for _ in range(wanted - serving):
            self._fork(
                self._configuration,
                list(self._listeners.values()),
                self._generation,
            )

    def _stop_workers(self) -> None:
        """End all workers: gently, and after their time by force."""
        for one in self._workers.values():
            _tell(one.channel, worker.STOP)
        deadline = time.monotonic() + worker.STOP_SECONDS + 2
        while self._workers and time.monotonic() < deadline:
            for key, _ in self._selector.select(deadline - time.monotonic()):
                key.data(key.fileobj)
            self._reap()
            self._signals.clear()
        for pid in self._workers:
            _kill(pid)

    def _answer(self, control: Control) -> None:
        """Answer one caller of the control socket."""
        control.answer(self._obey)

    def _obey(self, request: str) -> dict[str, object]:
        fault = ""
        if request == "reload":
            fault = self.reload()
        elif request == "stop":
            self._say(NOTICE, "stopping on request")
            self._stopping = True
        elif request != "status":
            fault = "the words are reload, status and stop"
        return {
            "ok": not fault,
            "error": fault,
            "pid": os.getpid(),
            "generation": self._generation,
            "configuration": self._configuration.generation,
            "listen": [show(address) for address in self._listeners],
            "workers": sorted(self._workers),
        }

    def _catch_signals(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._wakeup = (ours, theirs)
        self._selector.register(ours, selectors.EVENT_READ, lambda s: s.recv(4096))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._note_signal)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _warn(self) -> None:
        for plugin in self._configuration.plugins():
            for text in plugin.warnings():
                self._say(WARNING, f"warning: {text}")

    def _where(self) -> str:
        return ", ".join(map(show, self._listeners))

    def _say(self, level: int, text: str) -> None:
        for line in text.splitlines():
            self._log.server(level, f"smeconf-smtpd: {line}")


def _hears(channel: socket.socket, message: bytes, deadline: float) -> bool:
    """Wait for a message of a worker; False if it is gone or its time is up."""
    try:
        while (left := deadline - time.monotonic()) > 0:
            channel.settimeout(left)
            heard = channel.recv(1)
            if heard in (message, b""):
                return heard == message
    except OSError:
        pass
    return False


def _tell(channel: socket.socket, message: bytes) -> None:
    try:
        channel.send(message)
    except OSError:
        pass  # it died, which SIGCHLD tells


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def main(directory: str, paths: Paths) -> int:
    """Run the filter; return its exit status, faults said on standard error."""
    try:
        return Master(directory, paths).run()
    except ConfigError as error:
        for line in str(error).splitlines():
            print(f"smeconf-smtpd: {line}", file=sys.stderr)
        return 1
