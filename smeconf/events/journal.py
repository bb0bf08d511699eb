"""The journal of an install: what the next run does where this one was cut off.

One file of JSON in ``var/lib/smeconf/journal``, written before any target is touched.
How far the install came is told by the end of its name, so that going on needs no room
on a full disk:

    begun   files may be old, new, or some of each: they are put back
    told    the same, and services may serve on the new ones
    owed    the files are back, and those services are to be told
    done    the new files stay: what was kept of the old ones is removed
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from smeconf.paths import Paths
from smeconf.system import FileState, System


class InstallError(Exception):
    """A file that cannot be put in place, or back; its lines say which and why."""


BEGUN, TOLD, OWED, DONE = "begun", "told", "owed", "done"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an install.

    ``staged`` holds the new content until it is renamed to ``path``; ``backup`` is
    another name of the old file, None where there was none; ``kept`` one that stays,
    since the file was edited by hand.  ``old`` is mode, user and group before, ``new``
    what they shall be; ``digest`` is of the new content.
    """

    target: str
    path: str
    staged: str | None
    backup: str | None
    kept: str | None
    old: tuple[int, int, int] | None
    new: tuple[int, int, int] | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class GenerationEntry:
    """A directory that is read as a whole.

    ``path`` is that of its ``.generation`` file; ``old`` what that held, ``unfinished``
    what it holds while files are changed, ``new`` what it holds in the end.
    """

    path: str
    old: str | None
    unfinished: str
    new: str


@dataclass(slots=True)
class Journal:
    """What an install is about to do, in a form that outlives it."""

    token: str
    event: str
    began: str
    pid: int
    files: Sequence[FileEntry]
    generations: Sequence[GenerationEntry]
    directories: Sequence[str]
    services: Mapping[str, Sequence[str]] = field(default_factory=dict)
    depth: int = 0
    state: str = BEGUN

    def write(self, paths: Paths, system: System) -> None:
        """Write it: durable.  Raises OSError."""
        table = _mapped(asdict(self), lambda path: os.path.relpath(path, paths.root))
        del table["state"]
        data = json.dumps(table, indent=1).encode()
        state = FileState(data, 0o600, os.geteuid(), os.getegid())
        system.replace(self._path(paths, self.state), state)

    def advance(self, state: str, paths: Paths, system: System) -> None:
        """Note durably how far the install came.  Raises OSError."""
        if self.state == state:
            return
        old, self.state = self.state, state
        try:
            system.rename(self._path(paths, old), self._path(paths, state))
        except BaseException:  # an interrupt may have come behind the rename
            if not os.path.exists(self._path(paths, state)):
                self.state = old
            raise
        system.sync([_directory(paths)])

    def remove(self, paths: Paths, system: System) -> None:
        """Forget it: nothing is left to do.  Raises OSError."""
        system.remove(self._path(paths, self.state))
        system.sync([_directory(paths)])

    def _path(self, paths: Paths, state: str) -> str:
        return os.path.join(_directory(paths), f"{self.token}.{state}")


def find_journals(paths: Paths, system: System) -> list[Journal]:
    """Return every journal, that of the innermost event first.

    Raises InstallError for one that cannot be read.
    """
    try:
        names = os.listdir(_directory(paths))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        state = name.partition(".")[2]
        if state in (BEGUN, TOLD, OWED, DONE):
            path = os.path.join(_directory(paths), name)
            try:
                content = system.find(path)
                if content is not None:
                    found.append(_from_data(content.data, state, paths))
            except OSError as error:
                raise InstallError(f"{path}: {error.strerror}") from error
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InstallError(
                    f"{path}: is no journal of an install: move it away, and see that "
                    f"the files of the last event are as they should be"
                ) from error
    return sorted(found, key=lambda journal: (-journal.depth, journal.began))


def remove_litter(paths: Paths, system: System) -> None:
    """Remove what a run that was killed while it wrote its journal has left.

    For who holds the lock of events: nobody else writes there.  Raises OSError.
    """
    directory = _directory(paths)
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        if name.startswith("."):
            system.remove(os.path.join(directory, name))


def _from_data(data: bytes, state: str, paths: Paths) -> Journal:
    table = _mapped(
        json.loads(data),
        lambda path: os.path.normpath(os.path.join(paths.root, path)),
    )
    files = table.pop("files")
    generations = table.pop("generations")
    return Journal(
        files=[_file_entry(entry) for entry in files],
        generations=[GenerationEntry(**entry) for entry in generations],
        state=state,
        **table,
    )


def _file_entry(table: dict[str, Any]) -> FileEntry:
    for side in ("old", "new"):
        if isinstance(marks := table[side], list):
            table[side] = tuple(marks)
    return FileEntry(**table)


def _mapped(table: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Return a journal with its paths changed: on disk they are relative to the root,
    so that a copy of a root never reaches into the original."""
    for entry in (*table["files"], *table["generations"]):
        for name in ("path", "staged", "backup", "kept"):
            if entry.get(name) is not None:
                entry[name] = change(entry[name])
    table["directories"] = [change(path) for path in table["directories"]]
    return table


def _directory(paths: Paths) -> str:
    return os.path.join(paths.state, "journal")
