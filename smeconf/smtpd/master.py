"""The master: owns the listening sockets and the workers that serve on them.

A reload loads the new directory whole.  Good: workers of a new generation start on it,
and when they are ready the old ones accept no more and end with their last session.
Bad: it says why, and all stays as it was.  The sockets stay open throughout, so no
connection is refused; a session that began goes on as it began.

It is steered by signals (SIGHUP reload, SIGUSR1 new log files, SIGTERM and SIGINT stop)
and by a socket beside its process id file, which also answers: a line in (``reload``,
``status``, ``stop``), a line of JSON out.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from types import FrameType

from smeconf.paths import Paths
from smeconf.smtpd import worker
from smeconf.smtpd.config import ConfigError
from smeconf.smtpd.control import Control, PidFile
from smeconf.smtpd.listeners import Address, Identity, open_listener, show
from smeconf.smtpd.loader import Configuration, load
from smeconf.smtpd.log import ERROR, NOTICE, WARNING, Log
from smeconf.smtpd.log_settings import LogOutlet, prepare_log
from smeconf.smtpd.master_settings import MasterSettings
from smeconf.smtpd.metrics import MetricsServer, open_metrics, render
from smeconf.smtpd.slots import NoSlotLeft
from smeconf.smtpd.startup import import_late_modules, prepare
from smeconf.smtpd.vitals import TICK_SECONDS, Vitals
from smeconf.smtpd.workforce import Crew, Workforce

# A worker that died is replaced, but one that dies at once not more often than this.
_RESTART_SECONDS = 1.0
_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    *(signal.SIGCHLD, signal.SIGUSR1),
)


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
        self._force = Workforce(self._become_worker)
        self._vitals = Vitals(self._force)
        self._metrics: MetricsServer | None = None
        self._next_metrics: socket.socket | None = None  # of a reload that is under way
        self._tick_at = time.monotonic() + TICK_SECONDS
        self._restart_at: float | None = None
        self._generation = 0  # the one that serves
        self._started_generations = 0  # those that failed too: no number comes twice
        self._stopping = False
        self._log = Log()

    def run(self) -> int:
        """Serve until told to stop; return the exit status.

        Raises ConfigError where it cannot begin: one line a fault.
        """
        self._configuration, settings = self._load()
        for address in self._configuration.settings.listen:
            self._listeners[address] = open_listener(address)
        identity = Identity(self._configuration.settings.user, self._root)
        prepare(self._configuration, identity, self._run_directory)
        prepare_log(settings.log, self._root, identity)
        self._outlet = LogOutlet(settings.log, self._root)
        import_late_modules()
        identity.assume()
        with self._pid_file, self._control as control:
            self._catch_signals()
            self._outlet.attach(self._configuration.log)
            self._log = self._configuration.log
            self._selector.register(control, selectors.EVENT_READ, self._answer)
            self._warn(identity)
            self._begin_metrics(settings)
            # What is loaded is never garbage; and shared with workers if not touched.
            gc.freeze()
            crew = self._crew_of(self._configuration, settings, self._listeners)
            if fault := self._force.start(crew):
                raise ConfigError(fault)
            self._crew, self._generation = crew, crew.generation
            self._say(NOTICE, f"serving on {self._where()}")
            # An install that ended before there was a socket to tell us.
            if self._configuration.directory.has_changed():
                self.reload()
            self._loop()
            self._end()
        self._say(NOTICE, "stopped")
        return 0

    def _load(self) -> tuple[Configuration, MasterSettings]:
        """Load the directory.  Raises ConfigError, also where it changes meanwhile."""
        for _ in range(3):
            loaded = load(self._directory, self._root)
            settings = MasterSettings.read(loaded.directory)
            if not loaded.directory.has_changed():
                return loaded, settings
        raise ConfigError(f"{self._directory}: changes while it is read")

    def _begin_metrics(self, settings: MasterSettings) -> None:
        """Serve metrics; where that cannot be, mail goes on without."""
        try:
            self._serve_metrics(self._find_metrics_listener(settings))
        except ConfigError as error:
            self._say(WARNING, f"warning: {error}")

    def _loop(self) -> None:
        while not self._stopping:
            self._turn(min(self._deadlines()) - time.monotonic())
            while self._signals:
                self._on_signal(self._signals.pop(0))
            now = time.monotonic()
            if self._restart_at is not None and now >= self._restart_at:
                self._replace_missing()
            if now >= self._tick_at:
                self._tick_at = now + TICK_SECONDS
                self._vitals.rates.tick()
                self._log.tick()

    def _deadlines(self) -> list[float]:
        metrics = self._metrics.deadline if self._metrics is not None else None
        known = (self._tick_at, self._restart_at, metrics)
        return [deadline for deadline in known if deadline is not None]

    def _turn(self, seconds: float) -> None:
        """Wait for something to happen, and attend to it."""
        for key, _ in self._selector.select(max(0.0, seconds)):
            key.data(key.fileobj)
        if self._metrics is not None:
            self._metrics.tick()

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self.reload()
        elif number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGUSR1:
            self._log.reopen()
            self._force.tell(worker.REOPEN)
        else:
            self._say(NOTICE, f"stopping on {signal.Signals(number).name}")
            self._stopping = True

    def reload(self) -> str:
        """Serve new connections on the configuration as it is now on disk.

        Returns an empty text, or why all stays as it was.
        """
        try:
            new, settings = self._load()
            listeners = self._listeners_for(new)
        except ConfigError as error:
            self._say(ERROR, f"reload refused: {error}")
            return str(error)
        fresh = [s for a, s in listeners.items() if a not in self._listeners]
        try:
            metrics = self._next_metrics = self._find_metrics_listener(settings)
            if metrics is not None:
                fresh.append(metrics)
            crew = self._start(new, settings, listeners)
        except ConfigError as error:
            self._next_metrics = None
            for listener in fresh:
                listener.close()
            self._say(ERROR, f"reload failed: {error}")
            return str(error)
        for address, listener in self._listeners.items():
            if address not in listeners:
                listener.close()
        self._listeners, self._crew = listeners, crew
        self._generation = crew.generation
        self._configuration, self._log = new, new.log
        self._force.drain(self._generation)
        self._next_metrics = None
        if metrics is not None or not settings.metrics.port:
            self._serve_metrics(metrics)
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

    def _start(
        self,
        new: Configuration,
        settings: MasterSettings,
        listeners: dict[Address, socket.socket],
    ) -> Crew:
        """Start workers on a configuration.  Raises ConfigError, and leaves none."""
        identity = Identity("", self._root)
        prepare(new, identity, self._run_directory)
        prepare_log(settings.log, self._root, identity)
        outlet = self._outlet.for_settings(settings.log)
        outlet.attach(new.log)
        crew = self._crew_of(new, settings, listeners)
        fault = self._force.start(crew)
        if outlet is not self._outlet:
            (outlet if fault else self._outlet).close()
        if fault:
            raise ConfigError(fault)
        self._outlet = outlet
        return crew

    def _crew_of(
        self,
        configuration: Configuration,
        settings: MasterSettings,
        listeners: dict[Address, socket.socket],
    ) -> Crew:
        self._started_generations += 1
        self._force.stats.register(configuration.plugins())
        sockets = list(listeners.values())
        return Crew(self._started_generations, configuration, settings.limits, sockets)

    def _become_worker(self, listeners: Sequence[socket.socket]) -> None:
        """Let go, in a new worker, of what is the master's alone."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        for end in self._wakeup:
            end.close()
        # One that is dropped by this reload would still take connections.
        for listener in self._listeners.values():
            if listener not in listeners:
                listener.close()
        if self._metrics is not None:
            self._metrics.close_in_worker()
        if self._next_metrics is not None:
            self._next_metrics.close()
        self._control.close_in_worker()
        os.close(self._pid_file.fileno())  # with its lock

    def _find_metrics_listener(self, settings: MasterSettings) -> socket.socket | None:
        """Return a new socket for metrics; None where none is needed.

        Raises ConfigError.
        """
        port = settings.metrics.port
        if not port or (self._metrics is not None and self._metrics.port == port):
            return None
        return open_metrics(port)

    def _serve_metrics(self, listener: socket.socket | None) -> None:
        """Serve metrics on a socket in place of the one until now."""
        if self._metrics is not None:
            self._metrics.close()
        self._metrics = None
        if listener is not None:
            self._metrics = MetricsServer(self._selector, listener, self._render)

    def _render(self) -> str:
        return render(self._vitals, self._force.stats, self._generation)

    def _reap(self) -> None:
        """Take note of workers that ended; have those that died replaced."""
        for one, status in self._force.reap():
            if one.generation == self._generation and not self._stopping:
                how = f"signal {-status}" if status < 0 else f"exit status {status}"
                self._say(ERROR, f"worker {one.pid} died ({how}), replacing it")
                lived = time.monotonic() - one.started
                delay = 0.0 if lived > _RESTART_SECONDS else _RESTART_SECONDS
                self._restart_at = time.monotonic() + delay

    def _replace_missing(self) -> None:
        self._restart_at = None
        serving = sum(one.generation == self._generation for one in self._force)
        try:
            for _ in range(self._crew.size - serving):
                self._force.fork(self._crew)
        except (NoSlotLeft, OSError) as error:
            self._say(ERROR, f"a worker cannot be replaced yet: {error}")
            self._restart_at = time.monotonic() + _RESTART_SECONDS

    def _end(self) -> None:
        """End all workers, gently and after their time by force; leave nothing."""
        self._selector.unregister(self._control)
        self._force.tell(worker.STOP)
        deadline = time.monotonic() + worker.STOP_SECONDS + 2
        while self._force and time.monotonic() < deadline:
            self._turn(min([deadline, *self._deadlines()]) - time.monotonic())
            self._reap()
            self._signals.clear()
        self._force.kill()
        self._serve_metrics(None)
        self._control.remove()
        self._pid_file.remove()

    def _answer(self, control: Control) -> None:
        """Answer one caller of the control socket."""
        control.answer(self._obey)

    def _obey(self, request: str) -> dict[str, object]:
        fault = ""
        self._reap()  # the caller may know already of one that ended
        if request == "reload":
            fault = self.reload()
        elif request == "stop":
            self._say(NOTICE, "stopping on request")
            self._stopping = True
        elif request != "status":
            fault = "the words are reload, status and stop"
        answer = {
            "ok": not fault,
            "error": fault,
            "pid": os.getpid(),
            "generation": self._generation,
            "configuration": self._configuration.generation,
            "listen": [show(address) for address in self._listeners],
        }
        return answer | self._vitals.answer() if request == "status" else answer

    def _catch_signals(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._wakeup = (ours, theirs)
        self._selector.register(ours, selectors.EVENT_READ, lambda s: s.recv(4096))
        for number in _SIGNALS:
            signal.signal(number, self._note_signal)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _warn(self, identity: Identity | None = None) -> None:
        if identity is not None and identity.missing:
            why = f"user {identity.name} does not exist: running as the caller"
            self._say(WARNING, why)
        for plugin in self._configuration.plugins():
            for text in plugin.warnings():
                self._say(WARNING, f"warning: {text}")

    def _where(self) -> str:
        return ", ".join(map(show, self._listeners))

    def _say(self, level: int, text: str) -> None:
        for line in text.splitlines():
            self._log.server(level, f"smeconf-smtpd: {line}")


def main(directory: str, paths: Paths) -> int:
    """Run the filter; return its exit status, faults said on standard error."""
    try:
        return Master(directory, paths).run()
    except ConfigError as error:
        for line in str(error).splitlines():
            print(f"smeconf-smtpd: {line}", file=sys.stderr)
        return 1
