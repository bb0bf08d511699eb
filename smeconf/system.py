"""The machine, as far as events change it: files, programs."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file holds, and whose it is."""

    data: bytes
    mode: int
    uid: int
    gid: int


class System:
    """The real machine."""

    def find(self, path: str) -> FileState | None:
        """Return a file, or None where there is none.

        Raises OSError for what is no file or cannot be read.
        """
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                mode = status.st_mode & 0o7777
                return FileState(file.read(), mode, status.st_uid, status.st_gid)
        except FileNotFoundError:
            return None

    def replace(self, path: str, state: FileState) -> None:
        """Put a file in place: durable, and whole or not at all.  Raises OSError."""
        path = os.path.realpath(path)
        directory, name = os.path.split(path)
        os.makedirs(directory, exist_ok=True)
        beside = os.path.join(directory, f".{name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(beside, flags, 0o600)
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(state.data)
                stream.flush()
                self._own(stream.fileno(), state)
                os.fsync(stream.fileno())
            os.rename(beside, path)
        except BaseException:
            self.remove(beside)
            raise
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def repair(self, path: str, state: FileState) -> None:
        """Give a file whose content is right its owner and mode.  Raises OSError."""
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._own(file, state)
        finally:
            os.close(file)

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def run(
        self, words: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; its output, both kinds, is in ``stdout``.

        Raises OSError where it cannot be run.
        """
        # A file, not a pipe: what the program leaves running in the background may
        # hold a pipe open for ever.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                words,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            output.seek(0)
            said = output.read().decode("utf-8", "replace")
        return subprocess.CompletedProcess(words, done.returncode, said)

    def user_id(self, name: str) -> int:
        """Return a user's number.  Raises KeyError."""
        return 0 if name == "root" else pwd.getpwnam(name).pw_uid

    def group_id(self, name: str) -> int:
        """Return a group's number.  Raises KeyError."""
        return 0 if name == "root" else grp.getgrnam(name).gr_gid

    def _own(self, file: int, state: FileState) -> None:
        status = os.fstat(file)
        if (status.st_uid, status.st_gid) != (state.uid, state.gid):
            os.fchown(file, state.uid, state.gid)
        if status.st_mode & 0o7777 != state.mode:
            os.fchmod(file, state.mode)
