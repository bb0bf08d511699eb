"""A run of an event: all of a change applied, or none of it.

Everything is expanded and checked before a file is touched; the files are installed by
a journal; and where a later step fails (an action, a service that does not come up
with them) they are put back, and so is the service.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from smeconf.database import DatabaseError
from smeconf.events.adjust import Adjuster
from smeconf.events.changes import Change, Written, find_change
from smeconf.events.check import CheckError, checks_of, run_check
from smeconf.events.definition import ADJUST, EXPAND, Event
from smeconf.events.install import Install, InstallError, is_cut_off, recover
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
        except TurnError as error:
            raise EventError(str(error)) from error

    def _in_turn(self, turn: Turn, with_services: bool) -> list[Change]:
        with turn:
            outcome = turn.shared()
            if outcome is not None:
                self._log.notice(f"process {outcome.pid} has run it for this one, too")
                if outcome.fault:
                    raise EventError(outcome.fault)
                return []
            self._depth = turn.depth
            self._environment |= turn.environment()
            self._recover()
            began = time.monotonic()
            self._log.begin()
            try:
                self._run_steps(with_services)
            except BaseException as error:
                fault = self._undone(error)
                turn.finish(str(fault), None)
                self._log.end(1, str(fault), time.monotonic() - began)
                raise fault from error
            turn.finish("", self._snapshot.revisions())
            if with_services:
                self._pay_old_debts()
            self._log.end(0, "", time.monotonic() - began)
        return self._changes

    def plan(self) -> Plan:
        """Return what the event would do, having done none of it.

        Raises EventError where it would fail.
        """
        self._log.is_kept = False
        if is_cut_off(self._paths, self._system):
            self._log.notice(
                "an earlier run was cut off: the next event, or smeconf doctor "
                "--repair, puts its files back first"
            )
        try:
            self._adjuster.check(self._event.services)
            self._expand()
            checks = self._check()
        except (CheckError, TargetError, ServiceError) as error:
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
                        self._check()
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
        for fault in self._adjuster.pay_debts(told=self._event.services):
            self._log.notice(f"{fault}; smeconf doctor --repair tries it again")

    def _recover(self) -> None:
        if self._depth == 0:
            try:
                recover(self._paths, self._system, self._log.notice)
            except InstallError as error:
                raise EventError(f"{error} (left by an earlier run)") from error

    def _undone(self, error: BaseException) -> BaseException:
        """Put the files back, and the services that were told of them; return what to
        raise: the error, and what could not be put back."""
        left: list[str] = []
        if self._install is not None:
            try:
                self._install.undo()
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
                    maker = makers.setdefault(output.path, target)
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
        path = self._paths.under(output.path)
        expansion = text_of(output, expander, self._snapshot.secrets)
        old = self._system.find(path)
        if expansion is None:
            new = None
        else:
            data = expansion.text.encode("utf-8", "surrogateescape")
            new = FileState(data, output.metadata.mode, *self._owner(output, old))
        return find_change(output, old, new, self._layers, self._paths, written)

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

    def _check(self) -> list[str]:
        """Have all that will change checked; return the names of the checks."""
        labels = []
        for check in checks_of(self._changes, self._layers):
            label = f"check /{check.place}: {check.label}"
            with self._log.step("check", label, place=check.place, check=check.label):
                run_check(
                    check, self._changes, self._paths, self._system, self._environment
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
        self._log.say(result.stdout)
        if result.returncode != 0:
            said = result.stdout.rstrip() or f"exit status {result.returncode}"
            raise EventError(f"{path}: {said}")

    def _adjust(self) -> None:
        if self._event.name in _WITHOUT_SERVICES:
            self._log.notice(f"{self._event.name} leaves services as they are")
            return
        self._adjuster.check(self._event.services)
        if self._install is not None:
            self._install.tell()
        self._adjuster.tell(self._event.services)
