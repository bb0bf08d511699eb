"""Checks: whoever will read a file says whether it can, before it is installed.

A target may name a check of its own; a directory one that must accept it as a whole,
with all that lies in it.  Both are tried on copies.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from smeconf.events.changes import Change
from smeconf.paths import Paths
from smeconf.system import System
from smeconf.templates import Layers

CHECK_SECONDS = 60.0
# How the directories of copies are called.
COPIES = "smeconf-check-"


class CheckError(Exception):
    """A check that refused what was expanded; the lines are its own."""


@dataclass(frozen=True, slots=True)
class Check:
    """A command, and the path below the root that it is to accept.

    ``change`` is that of a single file, None for a directory.
    """

    place: str
    words: Sequence[str]
    change: Change | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        program = [os.path.basename(self.words[0]), *self.words[1:]]
        return " ".join(word for word in program if word != "{}")


def checks_of(changes: Sequence[Change], layers: Layers) -> list[Check]:
    """Return what must be checked where these changes are made, each once.

    Raises TargetError for metadata that cannot be read.
    """
    checks: dict[str, Check] = {}
    for change in changes:
        if not change.is_of_content:
            continue
        if change.check and change.new is not None:
            checks[change.target] = Check(change.target, change.check, change)
        directory = layers.directory_of(change.target)
        if directory is not None:
            checks[directory.path] = Check(directory.path, directory.check)
    return list(checks.values())


def run_check(
    check: Check,
    changes: Sequence[Change],
    paths: Paths,
    system: System,
    environment: Mapping[str, str],
    copies: str | None = None,
) -> None:
    """Run one check, on copies below a directory (``copies`` None: any).

    Raises CheckError with what it said, of the files as they will be named.
    """
    with _copy(check, changes, paths, copies) as staged:
        words = [word.replace("{}", staged) for word in check.words]
        try:
            result = system.run(words, environment, CHECK_SECONDS)
        except OSError as error:
            raise CheckError(
                f"{words[0]}: {error.strerror} (the check of /{check.place})"
            ) from error
    if result.returncode != 0:
        said = result.stdout.replace(staged, paths.under(check.place)).rstrip()
        status = result.returncode
        raise CheckError(
            said or f"/{check.place}: {check.label} refused it (exit status {status})"
        )


@contextmanager
def _copy(
    check: Check, changes: Sequence[Change], paths: Paths, copies: str | None
) -> Iterator[str]:
    """Give a copy of a file or a directory, with the changes made in it."""
    live = paths.under(check.place)
    with tempfile.TemporaryDirectory(prefix=COPIES, dir=copies) as folder:
        staged = os.path.join(folder, os.path.basename(check.place))
        if check.change is not None:
            _put(staged, check.change)
        else:
            _copy_directory(live, staged)
            for change in changes:
                if change.target.startswith(check.place + "/"):
                    inside = os.path.relpath(change.target, check.place)
                    _put(os.path.join(staged, inside), change)
        yield staged


def _copy_directory(live: str, staged: str) -> None:
    os.makedirs(staged, exist_ok=True)
    if os.path.isdir(live):
        try:
            shutil.copytree(live, staged, ignore=_not_files, dirs_exist_ok=True)
        except shutil.Error as error:
            (path, _, why), *_ = error.args[0]
            raise CheckError(f"{path}: cannot be read for its check: {why}") from error


def _not_files(directory: str, names: list[str]) -> list[str]:
    """Return what cannot be copied: sockets and the like."""
    return [
        name
        for name in names
        if not os.path.isfile(path := os.path.join(directory, name))
        and not os.path.isdir(path)
    ]


def _put(path: str, change: Change) -> None:
    if change.new is None:
        if os.path.lexists(path):
            os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)  # it may be of a mode that we cannot write
    with open(path, "wb") as file:
        file.write(change.new.data)
