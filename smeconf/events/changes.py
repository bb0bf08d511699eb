"""A target whose file is not what was expanded, and what we wrote before."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from smeconf.database.files import take_lock
from smeconf.paths import Paths
from smeconf.system import FileState, System
from smeconf.templates import Layers, Output


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of one file.

    ``target`` is its path below the root, ``path`` its path; ``old`` is None where
    there is none yet, ``new`` where it is to go.  ``is_edited``: what it holds was not
    written by us.  ``is_secret``: what it holds must not be shown.  ``whole`` is the
    directory above it that is read as a whole, or empty; ``check`` the command that
    must accept the new file, or nothing.
    """

    target: str
    path: str
    old: FileState | None
    new: FileState | None
    is_edited: bool = False
    is_secret: bool = False
    whole: str = ""
    check: tuple[str, ...] = ()

    @property
    def is_of_content(self) -> bool:
        """Whether more differs than owner and mode."""
        return self.old is None or self.new is None or self.old.data != self.new.data


def find_change(
    output: Output,
    old: FileState | None,
    new: FileState | None,
    layers: Layers,
    paths: Paths,
    written: Written,
    is_secret: bool = False,
) -> Change | None:
    """Return what is to become of a file; None where it is as it shall be.

    ``is_secret``: it must not be shown.

    Raises TargetError for metadata that cannot be read.
    """
    if new == old:
        return None
    is_edited = (
        old is not None
        and (new is None or new.data != old.data)
        and not written.is_ours(output.path, old.data)
    )
    directory = layers.directory_of(output.path)
    whole = directory.path if directory and directory.has_generation else ""
    return Change(
        output.path,
        paths.under(output.path),
        old,
        new,
        is_edited,
        is_secret,
        paths.under(whole) if whole else "",
        output.metadata.check,
    )


class Written:
    """What was last written to each target, as SHA-256 sums in ``written.json``."""

    def __init__(self, paths: Paths, system: System) -> None:
        self._path = os.path.join(paths.state, "written.json")
        self._system = system
        self._sums = self._read()

    def is_ours(self, target: str, data: bytes) -> bool:
        """Tell whether a target's file holds what was last written to it."""
        return self._sums.get(target) == digest(data)

    def targets(self) -> list[str]:
        """Return every target that was written and not removed since."""
        return sorted(self._sums)

    def note(self, sums: Mapping[str, str | None]) -> None:
        """Record what targets now hold; None: nothing.  Raises OSError."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        lock = take_lock(f"{self._path}.lock")
        try:
            before = self._read()
            new = {**before, **sums}
            self._sums = {name: total for name in sorted(new) if (total := new[name])}
            if self._sums != before:
                data = json.dumps(self._sums, indent=0).encode()
                state = FileState(data, 0o600, os.geteuid(), os.getegid())
                self._system.replace(self._path, state)
        finally:
            os.close(lock)

    def _read(self) -> dict[str, str]:
        """Return what is recorded; nothing, where that was lost: every target then
        counts as edited by hand, which loses nothing."""
        state = self._system.find(self._path)
        try:
            sums = json.loads(state.data) if state else {}
        except ValueError:
            sums = {}
        return sums if isinstance(sums, dict) else {}


def digest(data: bytes) -> str:
    """Return the SHA-256 sum of ``data``, in hexadecimal."""
    import hashlib

    return hashlib.sha256(data).hexdigest()
