"""What an event would do, in words and as data, before it is done.

Values that the schema calls secret are hidden in what is shown of files.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from smeconf.database import Database, Entry
from smeconf.paths import Paths
from smeconf.system import FileState, System
from smeconf.templates.records import DATABASES


@dataclass(frozen=True, slots=True)
class Change:
    """A target whose file differs from what was expanded; ``old`` None: it is new."""

    target: str
    path: str
    old: FileState | None
    new: FileState

    @property
    def is_of_content(self) -> bool:
        """Whether more differs than owner and mode."""
        return self.old is None or self.old.data != self.new.data


@dataclass(frozen=True, slots=True)
class Plan:
    """What an event would do.

    ``properties`` were changed since it was last run, of each database by its name;
    ``services`` are told their action; ``secrets`` must not be shown.
    """

    properties: Mapping[str, Sequence[Entry]]
    changes: Sequence[Change]
    services: Mapping[str, str]
    secrets: frozenset[str]

    def as_text(self) -> str:
        """Return the plan for people: nothing, where there is nothing to do."""
        if not self.changes:
            return ""
        text = [
            f"{name} {_in_words(entry)}\n"
            for name, entries in self.properties.items()
            for entry in entries
        ]
        text += (self._file_in_words(change) for change in self.changes)
        text += (f"service {name}: {act}\n" for name, act in self.services.items())
        return "".join(text)

    def as_json(self) -> str:
        """Return the plan for scripts."""
        table = {
            "properties": [
                {"database": name, "key": entry.key, "property": entry.property or None}
                for name, entries in self.properties.items()
                for entry in entries
            ],
            "files": [
                {
                    "path": f"/{change.target}",
                    "diff": "".join(self._diff(change)),
                    "mode": f"{change.new.mode:04o}",
                    "uid": change.new.uid,
                    "gid": change.new.gid,
                }
                for change in self.changes
            ],
            "services": dict(self.services) if self.changes else {},
        }
        return json.dumps(table, indent=2) + "\n"

    def _file_in_words(self, change: Change) -> str:
        if change.is_of_content:
            return "".join(self._diff(change))
        new = change.new
        return f"/{change.target}: mode {new.mode:04o}, owner {new.uid}:{new.gid}\n"

    def _diff(self, change: Change) -> Iterable[str]:
        old = b"" if change.old is None else change.old.data
        for line in unified_diff(change.target, old, change.new.data):
            yield hide(line, self.secrets)


def unified_diff(target: str, old: bytes, new: bytes) -> Iterable[str]:
    """Yield the lines of a unified diff of a target's file."""
    before, after = (
        data.decode("utf-8", "replace").splitlines(keepends=True) for data in (old, new)
    )
    name = f"/{target}"
    for line in difflib.unified_diff(before, after, name, name):
        yield line if line.endswith("\n") else f"{line}\n"


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` without the secrets in it."""
    for secret in secrets:
        text = text.replace(secret, "(secret)")
    return text


def changed_since(
    event: str, paths: Paths, system: System
) -> dict[str, tuple[Entry, ...]]:
    """Return what was changed in each database since an event was last run.

    Nothing where that is not known: it was never run.  Raises DatabaseError.
    """
    state = system.find(_state_path(event, paths))
    if state is None:
        return {}
    revisions: dict[str, int] = json.loads(state.data)
    changed = {
        name: tuple(
            entry
            for entry in Database.open(name, paths).entries()
            if entry.revision > revisions.get(name, 0)
        )
        for name in DATABASES
    }
    return {name: entries for name, entries in changed.items() if entries}


def remember_run(
    event: str, revisions: Mapping[str, int], paths: Paths, system: System
) -> None:
    """Note which revisions of the databases an event has applied.  Raises OSError."""
    data = json.dumps(dict(revisions)).encode()
    state = FileState(data, 0o600, os.geteuid(), os.getegid())
    system.replace(_state_path(event, paths), state)


def _state_path(event: str, paths: Paths) -> str:
    return os.path.join(paths.state, "applied", event)


def _in_words(entry: Entry) -> str:
    where = f"{entry.key} {entry.property}".rstrip()
    if entry.is_secret:
        return f"{where}: a secret was changed"
    return f"{where}: {_quoted(entry.old)} -> {_quoted(entry.new)}"


def _quoted(value: str | None) -> str:
    return "none" if value is None else repr(value)
