"""A run of an event: all of a change applied, or none of it.

Everything is expanded and checked before a file is touched; the files are installed by
a journal; and where a later step fails (an action, a service that does not come up
with them) they are put back, and so is the service.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from smeconf.database import DatabaseError
from smeconf.events.adjust import Adjuster
from smeconf.events.changes import Change, Written, find_change
from smeconf.events.check import CheckError, checks_of, run_check
from smeconf.events.definition import (
    ADJUST,
    EXPAND,
    Event,
    UnknownEvent,
    find_event,
)
from smeconf.events.install import Install, is_cut_off, recover
from smeconf.events.journal import InstallError
from smeconf.events.log import EventLog, Report
from smeconf.events.plan import Plan, changed_since, hide
from smeconf.events.turns import Turn, TurnError, find_outcome
from smeconf.paths import Paths
from smeconf.services import ServiceError
from smeconf.system import FileState, System
from smeconf.templates import (
    Expander,
    Layers,
    Output,
    Snapshot,
    TargetError,
    TemplateError,
    outputs,
    text_of,
)
from smeconf.templates.cache import Cache
from smeconf.templates.records import Read

# SME's events of a machine that is about to restart, or has no services yet.
_WITHOUT_SERVICES = frozenset({"post-upgrade", "bootstrap-console-save"})


class EventError(Exception):
    """An event that failed; its lines say why, the reason first.

    ``left`` says what could not be put back as it was; often nothing.
    """

    def __init__(self, reason: str, left: Sequence[str] = ()) -> None:
        super().__init__("\n".join((reason, *left)))
        self.left = left


class Run:
    """One run of an event; ``report`` hears of it."""

    def __init__(
        self,
        event: Event,
        arguments: Sequence[str],
        paths: Paths,
        system: System,
        report: Report,
    ) -> None:
        self._event = event
        self._arguments = list(arguments)
        self._paths = paths
        self._system = system
        self._log = EventLog(event.name, arguments, paths, report)
        self._layers = Layers(paths)
        self._snapshot = Snapshot(paths)
        self._adjuster = Adjuster(paths, system, self._snapshot, self._log)
        self._install: Install | None = None
        self._changes: list[Change] = []
        self._depth = 0
        self._environment = {
            **os.environ,
            "SMECONF_ROOT": paths.root,
            "EVENT": event.name,
            "PATH": os.pathsep.join(
                (os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath))
            ),
        }

    def apply(self, *, with_services: bool = True) -> list[Change]:
        """Run the event; return what it changed.

        Where anything fails, or interrupts it, all is put back as it was; raises
        EventError.
        """
        name, paths = self._event.name, self._paths
        turn = Turn(name, self._arguments, paths, self._system, self._log.notice)
        try:
            return self._in_turn(turn, with_services)
        except (TurnError, UnknownEvent, ServiceError) as error:
            raise EventError(str(error)) from error

    def _in_turn(self, turn: Turn, with_services: bool) -> list[Change]:
        with turn:
            outcome = turn.shared(with_services=with_services)
            if outcome is not None:
                self._log.notice(f"process {outcome.pid} has run it for this one, too")
                if outcome.fault:
                    raise EventError(outcome.fault)
                return []
            self._depth = turn.depth
            self._environment |= turn.environment()
            # Those who share this run may have changed the event while it waited.
            self._event = find_event(self._event.name, self._paths)
            self._recover()
            began = time.monotonic()
            self._log.begin()
            try:
                self._run_steps(with_services)
            except BaseException as error:
                with _undisturbed():
                    fault = self._undone(error, with_services)
                turn.finish(str(fault), None, with_services=with_services)
                self._log.end(1, str(fault), time.monotonic() - began)
                raise fault from error
            revisions = self._snapshot.revisions()
            turn.finish("", revisions, with_services=with_services)
            if with_services:
                self._pay_old_debts()
            self._log.end(0, "", time.monotonic() - began)
        return self._changes

    def plan(self) -> Plan:
        """Return what the event would do, having done none of it.

        Raises EventError where it would fail.
        """
        self._log.is_kept = False
        try:
            if is_cut_off(self._paths, self._system):
                self._log.notice(
                    "an earlier run was cut off: the next event, or smeconf doctor "
                    "--repair, puts its files back first"
                )
            self._adjuster.check(self._event.services)
            self._expand()
            checks = self._check()
        except (InstallError, CheckError, TargetError, ServiceError) as error:
            raise EventError(hide(str(error), self._snapshot.secrets)) from error
        last = find_outcome(self._event.name, self._paths, self._system)
        return Plan(
            changed_since(last.revisions if last else {}, self._paths),
            self._changes,
            checks,
            self._event.services,
            frozenset(self._snapshot.secrets),
        )

    def _run_steps(self, with_services: bool) -> None:
        try:
            for name, path in self._event.steps.items():
                with self._log.handler(name, path):
                    if name == EXPAND:
                        self._adjuster.check(self._event.services)
                        self._expand().save()
                        self._check(self._paths.state)
                        self._put_in_place()
                    elif name != ADJUST:
                        self._act(name, path)
                    elif with_services:
                        self._adjust()
            if self._install is not None:
                self._install.commit()
                self._install = None  # what comes now cannot undo it
        except (InstallError, CheckError, TargetError, ServiceError) as error:
            raise EventError(hide(str(error), self._snapshot.secrets)) from error
        except OSError as error:
            raise EventError(f"{error.filename}: {error.strerror}") from error

    def _pay_old_debts(self) -> None:
        for fault in self._adjuster.pay_debts(told=self._adjuster.told):
            self._log.notice(f"{fault}; smeconf doctor --repair tries it again")

    def _recover(self) -> None:
        if self._depth == 0:
            try:
                recover(self._paths, self._system, self._log.notice)
            except InstallError as error:
                raise EventError(f"{error} (left by an earlier run)") from error

    def _undone(self, error: BaseException, with_services: bool) -> BaseException:
        """Put the files back, and the services that were told of them; return what to
        raise: the error, and what could not be put back."""
        left: list[str] = []
        try:
            if self._install is not None:
                self._install.undo()
            if with_services:
                left += self._adjuster.pay_debts()
        except InstallError as fault:
            left += str(fault).splitlines()
        if isinstance(error, EventError):
            left = [f"{line}; smeconf doctor --repair tries it again" for line in left]
            return EventError(str(error), left)
        if isinstance(error, KeyboardInterrupt):
            return EventError("interrupted", left)
        return error

    # Expansion

    def _expand(self) -> Cache:
        """Expand every target in memory; note those that differ from their files.

        Returns the cache of compiled templates, for who may write.
        """
        cache = Cache.load(os.path.join(self._paths.state, "templates.cache"))
        expander = Expander(self._layers, self._snapshot, self._event.name, cache)
        written = Written(self._paths, self._system)
        makers: dict[str, str] = {}
        faults = []
        for target in self._event.targets:
            try:
                for output in outputs(target, self._layers, self._snapshot):
                    place = os.path.realpath(self._paths.under(output.path))
                    maker = makers.setdefault(place, target)
                    if maker != target:
                        raise TargetError(f"/{output.path}: /{maker} makes it, too")
                    change = self._compare(output, expander, written)
                    if change is not None:
                        self._changes.append(change)
            except (TemplateError, TargetError, DatabaseError) as error:
                faults.append(str(error))
            except OSError as error:
                faults.append(f"/{target}: {error.strerror}")
        for warning in self._layers.warnings:
            self._log.notice(warning)
        if faults:
            raise EventError(hide("\n".join(faults), self._snapshot.secrets))
        return cache

    def _compare(
        self, output: Output, expander: Expander, written: Written
    ) -> Change | None:
        reads: list[Read] = []
        self._snapshot.on_read = reads.append
        expansion = text_of(output, expander, self._snapshot.secrets)
        self._snapshot.on_read = None
        old = self._system.find(self._paths.under(output.path))
        if expansion is None:
            new = None
        else:
            data = expansion.text.encode("utf-8", "surrogateescape")
            new = FileState(data, output.metadata.mode, *self._owner(output, old))
        if new == old:
            return None
        is_secret = any(map(self._snapshot.is_secret, set(reads)))
        return find_change(
            output, old, new, self._layers, self._paths, written, is_secret
        )

    def _owner(self, output: Output, old: FileState | None) -> tuple[int, int]:
        if os.geteuid() != 0:
            return (old.uid, old.gid) if old else (os.geteuid(), os.getegid())
        try:
            return (
                self._system.user_id(output.metadata.owner),
                self._system.group_id(output.metadata.group),
            )
        except KeyError as error:
            raise TargetError(f"/{output.path}: its metadata: {error}") from error

    def _check(self, copies: str | None = None) -> list[str]:
        """Have all that will change checked; return the names of the checks.

        ``copies``: the directory in which copies are made.
        """
        labels = []
        for check in checks_of(self._changes, self._layers):
            label = f"check /{check.place}: {check.label}"
            with self._log.step("check", label, place=check.place, check=check.label):
                run_check(
                    check,
                    self._changes,
                    self._paths,
                    self._system,
                    self._environment,
                    copies,
                )
            labels.append(f"/{check.place}: {check.label}")
        return labels

    def _put_in_place(self) -> None:
        if not self._changes:
            return
        self._install = Install.of(
            self._changes,
            self._paths,
            self._system,
            self._event.name,
            self._event.services,
            self._depth,
        )
        targets = [change.target for change in self._changes]
        text = f"install {len(targets)} of {len(self._event.targets)} files"
        with self._log.step("install", text, targets=targets):
            self._install.put_in_place(self._changes)
        self._log.changed(targets)
        for target, name in self._install.kept:
            self._log.notice(f"/{target} was edited by hand: kept beside, as {name}")

    def _act(self, name: str, path: str) -> None:
        if not os.access(path, os.X_OK):
            self._log.notice(f"{path}: is not executable, skipped")
            return
        words = [path, self._event.name, *self._arguments]
        try:
            with self._log.step("run", f"run {name}", action=name):
                result = self._system.run(words, self._environment)
        except OSError as error:
            raise EventError(f"{path}: {error.strerror}") from error
        self._log.say(hide(result.stdout, self._snapshot.secrets))
        if result.returncode != 0:
            said = result.stdout.rstrip() or f"exit status {result.returncode}"
            raise EventError(hide(f"{path}: {said}", self._snapshot.secrets))

    def _adjust(self) -> None:
        if self._event.name in _WITHOUT_SERVICES:
            self._log.notice(f"{self._event.name} leaves services as they are")
            return
        # As the databases are now: an action may have changed a status.
        self._adjuster = Adjuster(
            self._paths, self._system, Snapshot(self._paths), self._log
        )
        self._adjuster.check(self._event.services)
        if self._install is not None:
            self._install.tell()
        self._adjuster.tell(self._event.services)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let an undo come to its end, however often it is interrupted."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        # Handlers, not SIG_IGN: what is started meanwhile must not inherit that.
        before = [signal.signal(number, lambda *_: None) for number in numbers]
    except ValueError:  # not the main thread: no signal arrives here
        yield
        return
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
