"""What an event would do, in words and as data, before it is done.

Values that the schema calls secret are hidden in what is shown of files.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from smeconf.database import Database, Entry
from smeconf.events.changes import Change
from smeconf.paths import Paths
from smeconf.templates.records import DATABASES

NOT_SHOWN = "/{}: differs, and holds a secret: it is not shown\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an event would do.

    ``properties`` were changed since it was last run, of each database by its name;
    ``checks`` have accepted the changes; ``services`` are told their actions;
    ``secrets`` must not be shown.
    """

    properties: Mapping[str, Sequence[Entry]]
    changes: Sequence[Change]
    checks: Sequence[str]
    services: Mapping[str, Sequence[str]]
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
        text += (f"accepted by the check of {check}\n" for check in self.checks)
        text += (
            f"service {name}: {', '.join(actions)}\n"
            for name, actions in self.services.items()
        )
        return "".join(text)

    def as_json(self) -> str:
        """Return the plan for scripts."""
        table = {
            "properties": [
                {"database": name, "key": entry.key, "property": entry.property or None}
                for name, entries in self.properties.items()
                for entry in entries
            ],
            "files": [self._file_as_table(change) for change in self.changes],
            "checks": list(self.checks),
            "services": {
                name: list(actions)
                for name, actions in self.services.items()
                if self.changes
            },
        }
        return json.dumps(table, indent=2) + "\n"

    def _file_as_table(self, change: Change) -> dict[str, object]:
        new = change.new
        return {
            "path": f"/{change.target}",
            "diff": "".join(self._diff(change)),
            "edited": change.is_edited,
            "removed": new is None,
            "mode": f"{new.mode:04o}" if new else None,
            "uid": new.uid if new else None,
            "gid": new.gid if new else None,
        }

    def _file_in_words(self, change: Change) -> str:
        new = change.new
        if new is not None and not change.is_of_content:
            mode, owner = f"{new.mode:04o}", f"{new.uid}:{new.gid}"
            return f"/{change.target}: mode {mode}, owner {owner}\n"
        text = "".join(self._diff(change))
        if new is None:
            text = f"/{change.target}: is removed\n{text}"
        if change.is_edited:
            text = f"/{change.target}: was edited by hand, which is kept beside\n{text}"
        return text

    def _diff(self, change: Change) -> Iterable[str]:
        if change.is_secret:
            # Neither the new one nor the old, nor what templates have made of them.
            yield NOT_SHOWN.format(change.target)
            return
        old = b"" if change.old is None else change.old.data
        new = b"" if change.new is None else change.new.data
        for line in unified_diff(change.target, old, new):
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
    # As they are, and as errors quote them; the longest first, since one may be a part
    # of another.
    shown = {form for one in secrets for form in (one, repr(one)[1:-1]) if form}
    if not shown:
        return text
    forms = sorted(shown, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, forms)), "(secret)", text)


def changed_since(
    revisions: Mapping[str, int], paths: Paths
) -> dict[str, tuple[Entry, ...]]:
    """Return what was changed in each database since the revisions that were applied.

    Nothing where there are none: the event was never run.  Raises DatabaseError.
    """
    if not revisions:
        return {}
    changed = {
        name: tuple(
            entry
            for entry in Database.open(name, paths).entries()
            if entry.revision > revisions.get(name, 0)
        )
        for name in DATABASES
    }
    return {name: entries for name, entries in changed.items() if entries}


def _in_words(entry: Entry) -> str:
    where = f"{entry.key} {entry.property}".rstrip()
    if entry.is_secret:
        return f"{where}: a secret was changed"
    return f"{where}: {_quoted(entry.old)} -> {_quoted(entry.new)}"


def _quoted(value: str | None) -> str:
    return "none" if value is None else repr(value)
