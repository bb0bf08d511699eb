"""Events: all of a change applied, or none of it.

The order is SME's: every target of ``templates2expand`` is expanded, then the event's
own executables run (``Snn…``, in byte order), then the services of ``services2adjust``
are adjusted.  What is new is that nothing is written before everything was expanded
and checked, and that the files are put back where a later step fails.

An event is a directory: shipped ``events/NAME``, and what the site adds to it in
``etc/smeconf/events/NAME``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from filelock import FileLock

from smeconf.database import DatabaseError
from smeconf.database.schema import nearest
from smeconf.paths import Paths, shipped
from smeconf.plan import Change, Plan, changed_since, remember_run
from smeconf.services import ServiceError, find_service
from smeconf.system import FileState, System
from smeconf.templates import (
    Expander,
    Layers,
    Snapshot,
    TargetError,
    TemplateError,
)


class UnknownEvent(Exception):
    """An event that has no directory."""


class EventError(Exception):
    """An event that changed nothing in the end; its lines say why."""


@dataclass(frozen=True, slots=True)
class Event:
    """What an event does."""

    name: str
    targets: tuple[str, ...]
    actions: tuple[str, ...]
    services: dict[str, str]


def find_event(name: str, paths: Paths) -> Event:
    """Return an event, the site's additions included.  Raises UnknownEvent."""
    places = [
        os.path.join(root, name)
        for root in (shipped("events"), os.path.join(paths.site, "events"))
    ]
    places = [place for place in places if os.path.isdir(place)]
    if not places or "/" in name or name in ("", "actions") or name[0] == ".":
        raise UnknownEvent(f"{name}: there is no such event{_nearest(name, paths)}")
    targets: set[str] = set()
    actions: dict[str, str] = {}
    services: dict[str, str] = {}
    for place in places:
        targets.update(_files_below(os.path.join(place, "templates2expand")))
        for entry in os.listdir(place):
            path = os.path.join(place, entry)
            if entry.startswith("S") and os.path.isfile(path):
                actions[entry] = path
        services.update(_service_actions(os.path.join(place, "services2adjust")))
    return Event(
        name,
        tuple(sorted(targets, key=os.fsencode)),
        tuple(actions[entry] for entry in sorted(actions, key=os.fsencode)),
        services,
    )


class Run:
    """One run of an event.

    ``say`` gets a line for each thing that an administrator should hear.
    """

    def __init__(
        self,
        event: Event,
        arguments: list[str],
        paths: Paths,
        system: System,
        say: Callable[[str], None],
    ) -> None:
        self._event = event
        self._arguments = arguments
        self._paths = paths
        self._system = system
        self._say = say
        self._snapshot = Snapshot(paths)
        self._layers = Layers(paths)
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

        Raises EventError, with all as it was, where anything fails.
        """
        os.makedirs(self._paths.state, exist_ok=True)
        with FileLock(os.path.join(self._paths.state, "event.lock")):
            changes = self._changes()
            self._check(changes)
            try:
                self._install(changes)
                self._run_actions()
                if with_services:
                    self._adjust_services()
                self._remember()
            except BaseException:  # an interrupt from the keyboard, too
                self._restore(changes)
                raise
        return changes

    def plan(self) -> Plan:
        """Return what the event would do, having done none of it.

        Raises EventError where it would fail.
        """
        changes = self._changes()
        self._check(changes)
        return Plan(
            changed_since(self._event.name, self._paths, self._system),
            changes,
            self._event.services,
            frozenset(self._snapshot.secrets),
        )

    def _remember(self) -> None:
        try:
            remember_run(
                self._event.name, self._snapshot.revisions(), self._paths, self._system
            )
        except OSError as error:
            raise EventError(f"{error.filename}: {error.strerror}") from error

    def _changes(self) -> list[Change]:
        """Expand every target in memory; return those that differ from their files."""
        expander = Expander(self._layers, self._snapshot, self._event.name)
        changes = []
        faults = []
        for target in self._event.targets:
            try:
                text = expander.expand(target).text
                change = self._compare(target, text.encode("utf-8", "surrogateescape"))
            except (TemplateError, TargetError, DatabaseError) as error:
                faults.append(str(error))
            except OSError as error:
                faults.append(f"/{target}: {error.strerror}")
            else:
                if change is not None:
                    changes.append(change)
        if faults:
            raise EventError("\n".join(faults))
        return changes

    def _compare(self, target: str, data: bytes) -> Change | None:
        path = self._paths.under(target)
        old = self._system.find(path)
        metadata = self._layers.metadata(target)
        uid, gid = os.geteuid(), os.getegid()
        if uid == 0:
            try:
                uid = self._system.user_id(metadata.owner)
                gid = self._system.group_id(metadata.group)
            except KeyError as error:
                raise TargetError(f"/{target}: its metadata: {error}") from error
        elif old is not None:
            uid, gid = old.uid, old.gid
        new = FileState(data, metadata.mode, uid, gid)
        return None if new == old else Change(target, path, old, new)

    def _check(self, changes: list[Change]) -> None:
        """Have each directory that will change checked by its own consumer."""
        checks: dict[str, list[str]] = {}
        for change in changes:
            found = self._layers.directory_check(change.target)
            if found is not None and change.is_of_content:
                checks[found[0]] = found[1]
        for directory, words in checks.items():
            with self._staged(directory, changes) as staged:
                self._run_check(directory, staged, words)

    def _staged(
        self, directory: str, changes: list[Change]
    ) -> tempfile.TemporaryDirectory[str]:
        """Return a copy of a directory with the changes made in it."""
        staged = tempfile.TemporaryDirectory(prefix="smeconf-check-")
        live = self._paths.under(directory)
        if os.path.isdir(live):
            shutil.copytree(live, staged.name, symlinks=True, dirs_exist_ok=True)
        for change in changes:
            if change.target.startswith(directory + "/"):
                inside = os.path.relpath(change.target, directory)
                path = os.path.join(staged.name, inside)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(change.new.data)
        return staged

    def _run_check(self, directory: str, staged: str, words: list[str]) -> None:
        command = [word.replace("{}", staged) for word in words]
        try:
            result = self._system.run(command, self._environment)
        except OSError as error:
            raise EventError(f"{command[0]}: {error.strerror}") from error
        if result.returncode != 0:
            # Name the files where they will be, not where they were tried.
            live = self._paths.under(directory)
            said = result.stdout.replace(staged, live).rstrip()
            raise EventError(said or f"{' '.join(words)} refused /{directory}")

    def _install(self, changes: list[Change]) -> None:
        try:
            for change in changes:
                if change.is_of_content:
                    self._system.replace(change.path, change.new)
                    self._say(f"expanded /{change.target}")
                else:
                    self._system.repair(change.path, change.new)
        except OSError as error:
            raise EventError(
                f"/{change.target}: cannot be written: {error.strerror}"
            ) from error

    def _restore(self, changes: list[Change]) -> None:
        """Put the files back as they were."""
        for change in reversed(changes):
            try:
                if change.old is None:
                    self._system.remove(change.path)
                    continue
                now = self._system.find(change.path)
                if now is None or now.data != change.old.data:
                    self._system.replace(change.path, change.old)
                elif now != change.old:
                    self._system.repair(change.path, change.old)
            except OSError as error:
                self._say(f"/{change.target}: cannot be put back: {error.strerror}")

    def _run_actions(self) -> None:
        for path in self._event.actions:
            if not os.access(path, os.X_OK):
                self._say(f"{path}: is not executable, skipped")
                continue
            words = [path, self._event.name, *self._arguments]
            try:
                result = self._system.run(words, self._environment)
            except OSError as error:
                raise EventError(f"{path}: {error.strerror}") from error
            if result.returncode != 0:
                said = result.stdout.rstrip() or f"exit status {result.returncode}"
                raise EventError(f"{path}: {said}")

    def _adjust_services(self) -> None:
        for name, action in self._event.services.items():
            record = self._snapshot.find("configuration", name)
            if record is None or isinstance(record, str):
                raise EventError(f"{name}: configuration has no such service")
            is_enabled = record.find("status") == "enabled"
            try:
                said = find_service(name, self._paths).adjust(action, is_enabled)
            except ServiceError as error:
                raise EventError(str(error)) from error
            if said:
                self._say(said)


def _nearest(name: str, paths: Paths) -> str:
    known: set[str] = set()
    for root in (shipped("events"), os.path.join(paths.site, "events")):
        if os.path.isdir(root):
            known.update(os.listdir(root))
    return nearest(name, sorted(known))


def _files_below(root: str) -> Iterator[str]:
    for directory, _, files in os.walk(root):
        for name in files:
            yield os.path.relpath(os.path.join(directory, name), root)


def _service_actions(directory: str) -> dict[str, str]:
    """Return service -> action; an entry is a symlink or a file naming the action."""
    actions: dict[str, str] = {}
    if not os.path.isdir(directory):
        return actions
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        if os.path.islink(path):
            actions[name] = os.readlink(path)
        else:
            with open(path, encoding="utf-8") as file:
                actions[name] = file.read().strip()
    return actions
