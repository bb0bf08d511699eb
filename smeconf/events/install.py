"""The install of a set of files: all of them or none, whatever happens in between.

1. The journal is written.
2. Each new file is written beside its target, and the old one gets a second name.  A
   full disk, a missing right or a read-only directory shows here, before any change.
3. For a directory that is read as a whole, ``DIRECTORY.generation`` says which files
   its reader takes in place of those that are about to change.
4. The new files are renamed into place, and that file names the new whole.
5. Commit: the journal is marked done, and the second names go.  Or undo: the second
   names are renamed back, so that a file returns as the very file it was.

Whoever finds a journal does step 5 for the run that was killed.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from smeconf.events.changes import Change, Written, digest
from smeconf.events.check import COPIES
from smeconf.events.journal import (
    DONE,
    OWED,
    TOLD,
    FileEntry,
    GenerationEntry,
    InstallError,
    Journal,
    find_journals,
    remove_litter,
)
from smeconf.paths import Paths, generation_file
from smeconf.system import FileState, System

EDITED = ".edited"


class Install:
    """One install, from its journal to its commit or undo.

    ``services`` will be told of it: each name with its actions.
    """

    def __init__(self, journal: Journal, paths: Paths, system: System) -> None:
        self._journal = journal
        self._paths = paths
        self._system = system

    @classmethod
    def of(
        cls,
        changes: Sequence[Change],
        paths: Paths,
        system: System,
        event: str,
        services: Mapping[str, Sequence[str]] | None = None,
        depth: int = 0,
    ) -> Install:
        """Return an install of these changes, which has done nothing yet."""
        token = secrets.token_hex(4)
        journal = Journal(
            token=token,
            event=event,
            began=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            pid=os.getpid(),
            files=[
                _entry(change, f"{token}-{number}", system)
                for number, change in enumerate(changes)
            ],
            generations=[],
            directories=[],
            services=services or {},
            depth=depth,
        )
        journal.directories = _missing_directories(journal.files)
        journal.generations = _generations(changes, journal, system)
        return cls(journal, paths, system)

    @property
    def kept(self) -> list[tuple[str, str]]:
        """Return the targets that were edited by hand, and where that is kept."""
        return [
            (entry.target, os.path.basename(entry.kept))
            for entry in self._journal.files
            if entry.kept is not None
        ]

    def put_in_place(self, changes: Sequence[Change]) -> None:
        """Steps 1 to 4.  Raises InstallError; it is then for the caller to undo."""
        changes_by_target = {change.target: change for change in changes}
        journal, system = self._journal, self._system
        with _naming("the journal"):
            journal.write(self._paths, system)
        for directory in journal.directories:
            with _naming(directory):
                system.make_directory(directory)
        for entry in journal.files:
            with _naming(f"/{entry.target}"):
                self._stage(entry, changes_by_target[entry.target])
        with _naming("the new files"):
            system.sync([entry.staged for entry in journal.files if entry.staged])
            system.sync(self._directories())
            self._mark([(one.path, one.unfinished) for one in journal.generations])
        for entry in journal.files:
            with _naming(f"/{entry.target}"):
                self._swap(entry)
        with _naming("the new files"):
            system.sync(self._directories())
            self._mark([(one.path, one.new) for one in journal.generations])

    def tell(self) -> None:
        """Note that services are about to be told.  Raises OSError."""
        if self._journal.services:
            self._journal.advance(TOLD, self._paths, self._system)

    def commit(self) -> None:
        """The new files stay.  Raises OSError where that could not be noted."""
        self._journal.advance(DONE, self._paths, self._system)
        try:
            self.clean_up()
        except (OSError, KeyboardInterrupt):
            pass  # the next run does it; to be stopped, it is too late

    def clean_up(self) -> None:
        """Note what was written, and remove what was kept of the old files.

        Raises OSError.
        """
        sums = {e.target: e.digest for e in self._journal.files if e.digest}
        gone = {e.target: None for e in self._journal.files if e.new is None}
        Written(self._paths, self._system).note({**sums, **gone})
        for entry in self._journal.files:
            if entry.backup is not None:
                self._system.remove(entry.backup)
        self._journal.remove(self._paths, self._system)

    def undo(self) -> None:
        """Put every file back as it was; services that were told are then owed it.

        Raises InstallError naming those that cannot be put back; the journal then stays
        for the next run or ``smeconf doctor``.
        """
        faults: list[str] = []
        if self._journal.state == DONE:  # renamed, but the disk failed to keep that
            with _naming("the journal"):
                self._journal.advance(TOLD, self._paths, self._system)
        with _collecting(faults, "the mark of an unfinished install"):
            self._mark([(one.path, one.unfinished) for one in self._generations()])
        for entry in reversed(self._journal.files):
            with _collecting(faults, f"/{entry.target}"):
                self._restore(entry)
        if faults:
            raise InstallError("\n".join(faults))
        with _naming("what was put back"):
            self._put_marks_back()

    def _put_marks_back(self) -> None:
        there = [path for path in self._directories() if os.path.isdir(path)]
        self._system.sync(there)
        self._mark([(one.path, one.old) for one in self._generations()])
        for directory in reversed(self._journal.directories):
            self._system.remove_directory(directory)
        if self._journal.state == TOLD:
            self._journal.advance(OWED, self._paths, self._system)
        else:
            self._journal.remove(self._paths, self._system)

    def settle(self) -> None:
        """The services that were owed it have been told.  Raises OSError."""
        if self._journal.state == OWED:
            self._journal.remove(self._paths, self._system)

    def _stage(self, entry: FileEntry, change: Change) -> None:
        if entry.backup is not None:
            self._system.link(entry.path, entry.backup)
            # Who edits it while the event is expanded and checked must not lose that.
            now = self._system.find(entry.backup)
            if now is None or change.old is None or now.data != change.old.data:
                raise _changed_meanwhile(entry)
        if entry.kept is not None:
            self._system.link(entry.path, entry.kept)
        if entry.staged is not None:
            assert change.new is not None
            self._system.write(entry.staged, change.new)

    def _swap(self, entry: FileEntry) -> None:
        if entry.staged is not None:
            if entry.old is None and os.path.lexists(entry.path):
                raise _changed_meanwhile(entry)
            self._system.rename(entry.staged, entry.path)
        elif entry.new is None:
            self._system.remove(entry.path)
        else:
            self._system.repair(entry.path, *entry.new)

    def _restore(self, entry: FileEntry) -> None:
        if entry.staged is not None:
            self._system.remove(entry.staged)
        if entry.old is None:
            if self._is_what_we_wrote(entry):
                self._system.remove(entry.path)
        elif entry.backup is None:
            if os.path.lexists(entry.path):
                self._system.repair(entry.path, *entry.old)
        elif os.path.lexists(entry.backup):
            if entry.kept is not None and _is_same(entry.kept, entry.backup):
                self._system.remove(entry.kept)
            # Where it was never touched a rename may be what is not allowed.
            if not _is_same(entry.path, entry.backup):
                self._keep_what_is_newer(entry)
                self._system.rename(entry.backup, entry.path)
            self._system.remove(entry.backup)

    def _is_what_we_wrote(self, entry: FileEntry) -> bool:
        state = self._system.find(entry.path)
        return state is not None and digest(state.data) == entry.digest

    def _keep_what_is_newer(self, entry: FileEntry) -> None:
        """Keep what somebody wrote to a file since the run that is undone."""
        state = self._system.find(entry.path)
        if (
            state is not None
            and digest(state.data) != entry.digest
            and (place := _place_to_keep(entry.path, state, self._system)) is not None
        ):
            self._system.link(entry.path, place)

    def _generations(self) -> list[GenerationEntry]:
        """Return the wholes that are there: not those whose directory was not made."""
        return [
            one
            for one in self._journal.generations
            if os.path.isdir(os.path.dirname(one.path))
        ]

    def _mark(self, marks: Sequence[tuple[str, str | None]]) -> None:
        for path, text in marks:
            if text is None:
                self._system.remove(path)
            else:
                self._system.replace(
                    path, FileState(text.encode(), 0o644, os.geteuid(), os.getegid())
                )

    def _directories(self) -> list[str]:
        holding = {os.path.dirname(entry.path) for entry in self._journal.files}
        parents = {os.path.dirname(path) for path in self._journal.directories}
        return sorted(holding | parents)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InstallError(f"{what}: cannot be written: {error.strerror}") from error


@contextmanager
def _collecting(faults: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        faults.append(f"{what}: cannot be put back: {error.strerror}")


def recover(paths: Paths, system: System, say: Callable[[str], None]) -> None:
    """Finish or undo what was cut off, and say so.

    Raises InstallError where a file cannot be put back; the journal stays.
    """
    with _naming("the journal"):
        remove_litter(paths, system)
    for copies in glob.glob(os.path.join(paths.state, f"{COPIES}*")):
        shutil.rmtree(copies, ignore_errors=True)
    for journal in find_journals(paths, system):
        install = Install(journal, paths, system)
        what = f"{journal.event} of {journal.began} (process {journal.pid})"
        if journal.state == DONE:
            with _naming("the journal"):
                install.clean_up()
            say(f"{what} had been cut off at its end: finished")
        elif journal.state != OWED:
            install.undo()
            say(f"{what} had been cut off: its files were put back as they were")


def is_cut_off(paths: Paths, system: System) -> bool:
    """Tell whether there is something for ``recover`` to do."""
    return any(journal.state != OWED for journal in find_journals(paths, system))


def find_debts(
    paths: Paths, system: System
) -> list[tuple[Install, Mapping[str, Sequence[str]]]]:
    """Return the installs whose services are owed to be told that files are back."""
    return [
        (Install(journal, paths, system), journal.services)
        for journal in find_journals(paths, system)
        if journal.state == OWED
    ]


def _changed_meanwhile(entry: FileEntry) -> OSError:
    why = "somebody else has just changed it: signal the event again"
    return OSError(errno.EAGAIN, why, entry.path)


def _is_same(path: str, other: str) -> bool:
    """Tell whether two names are of one file, or of a file and its untouched copy."""
    try:
        if os.path.samestat(os.lstat(path), os.lstat(other)):
            return True
        with open(path, "rb") as one, open(other, "rb") as two:
            return one.read() == two.read() and _marks(path) == _marks(other)
    except OSError:
        return False


def _marks(path: str) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_mode, status.st_uid, status.st_gid


def _entry(change: Change, mark: str, system: System) -> FileEntry:
    with _naming(f"/{change.target}"):
        path = system.resolve(change.path)
    old, new = change.old, change.new
    is_new = change.is_of_content and new is not None
    return FileEntry(
        target=change.target,
        path=path,
        staged=_beside(path, mark, "new") if is_new else None,
        backup=_beside(path, mark, "old") if old and change.is_of_content else None,
        kept=_place_to_keep(path, old, system) if change.is_edited and old else None,
        old=(old.mode, old.uid, old.gid) if old else None,
        new=(new.mode, new.uid, new.gid) if new else None,
        digest=digest(new.data) if new is not None and is_new else None,
    )


def _beside(path: str, mark: str, what: str) -> str:
    # Not of the file's own name: that may be as long as names can be.
    return os.path.join(os.path.dirname(path), f".smeconf-{mark}.{what}")


def _place_to_keep(path: str, old: FileState, system: System) -> str | None:
    """Return a name for what was edited by hand; None where it is kept already."""
    number = 1
    while True:
        ending = EDITED + (f".{number}" if number > 1 else "")
        directory, name = os.path.split(path)
        # A name may have 255 bytes.
        stem = os.fsencode(name)[: 255 - len(ending)].decode("utf-8", "ignore")
        place = os.path.join(directory, stem + ending)
        if not os.path.lexists(place):
            return place
        try:
            kept = system.find(place)
        except OSError:
            kept = None  # what is no file, or not for us to read
        if kept is not None and kept.data == old.data:
            return None
        number += 1


def _missing_directories(entries: Sequence[FileEntry]) -> list[str]:
    """Return the directories that must be made, upper ones first."""
    missing: list[str] = []
    for entry in entries:
        directory = os.path.dirname(entry.path)
        chain = []
        while entry.new is not None and not os.path.isdir(directory):
            chain.append(directory)
            directory = os.path.dirname(directory)
        missing += (path for path in reversed(chain) if path not in missing)
    return missing


def _generations(
    changes: Sequence[Change], journal: Journal, system: System
) -> list[GenerationEntry]:
    backups = {entry.target: entry.backup for entry in journal.files}
    wholes: dict[str, dict[str, str | None]] = {}
    for change in changes:
        if change.whole and change.is_of_content:
            backup = backups[change.target]
            name = os.path.relpath(change.path, change.whole)
            # Of the real directory: that is where ``..`` leads to.
            real = os.path.realpath(change.whole)
            instead = os.path.relpath(backup, real) if backup else None
            wholes.setdefault(change.whole, {})[name] = instead
    new = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{journal.token}"
    return [
        _generation(generation_file(whole), unfinished, new, system)
        for whole, unfinished in wholes.items()
    ]


def _generation(
    path: str, unfinished: Mapping[str, str | None], new: str, system: System
) -> GenerationEntry:
    state = system.find(path)
    old = state.data.decode("utf-8", "replace") if state else None
    try:
        old_id = str(json.loads(old)["id"]) if old else ""
    except (ValueError, TypeError, KeyError):
        old, old_id = None, ""  # nothing that any reader understands
    return GenerationEntry(
        path=path,
        old=old,
        unfinished=json.dumps({"id": old_id, "unfinished": unfinished}) + "\n",
        new=json.dumps({"id": new}) + "\n",
    )
