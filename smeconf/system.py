"""The machine, as far as events change it: files, programs."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# How long a program may run that is given no limit of its own.
RUN_SECONDS = 600.0
# How much of what it says is kept: the end.
_OUTPUT_BYTES = 65536

# Whatever lies at the path now: nobody's link is followed, no pipe is waited for.
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# File systems without hard links, and files that may have none.
_WITHOUT_LINKS = (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file holds, and whose it is."""

    data: bytes
    mode: int
    uid: int
    gid: int


class System:
    """The real machine.  Whatever changes it raises OSError where it cannot."""

    def resolve(self, path: str) -> str:
        """Return the real path of a file that is to be written.

        Raises OSError for a link on the way that another user has made: he would say
        where we write.
        """
        real = os.path.realpath(path)
        if real != path:
            place = "/"
            for part in path.strip("/").split("/"):
                place = os.path.join(place, part)
                if os.path.islink(place):
                    owner = os.lstat(place).st_uid
                    if owner not in (0, os.geteuid()):
                        why = f"is a link that user {owner} has made"
                        raise PermissionError(errno.EPERM, why, place)
        return real

    def find(self, path: str) -> FileState | None:
        """Return a file, or None where there is none.

        Raises OSError for what is no file or cannot be read.
        """
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "is not a regular file", path)
                mode = status.st_mode & 0o7777
                return FileState(file.read(), mode, status.st_uid, status.st_gid)
        except FileNotFoundError:
            return None

    def replace(self, path: str, state: FileState) -> None:
        """Put a file in place: durable, and whole or not at all."""
        path = os.path.realpath(path)
        directory, name = os.path.split(path)
        os.makedirs(directory, exist_ok=True)
        beside = os.path.join(directory, f".{name}.new")
        try:
            self.write(beside, state)
            self.sync([beside])
            os.rename(beside, path)
        except BaseException:
            self.remove(beside)
            raise
        self.sync([directory])

    def write(self, path: str, state: FileState) -> None:
        """Write a new file, its owner and mode final before its content is there.

        A file that is there is litter of a run that was killed, and replaced.
        """
        self.remove(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb", 0) as file:
            self._own(file.fileno(), state)
            view = memoryview(state.data)
            while view:
                view = view[file.write(view) :]

    def sync(self, paths: Sequence[str]) -> None:
        """Make files and directories durable."""
        for path in paths:
            file = os.open(path, _READING)
            try:
                os.fsync(file)
            except OSError as error:
                # A file system that cannot, such as /proc, has nothing to make durable.
                if error.errno != errno.EINVAL:
                    raise
            finally:
                os.close(file)

    def link(self, path: str, also: str) -> None:
        """Give a file another name; a copy, where it cannot have one.

        Raises FileExistsError where that name is taken.
        """
        try:
            os.link(path, also, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            state = self.find(path)
            if state is None:
                raise FileNotFoundError(errno.ENOENT, "is gone", path) from error
            status = os.stat(path)
            self.write(also, state)
            os.utime(also, ns=(status.st_atime_ns, status.st_mtime_ns))

    def rename(self, path: str, new: str) -> None:
        """Put a file in the place of another, or of none."""
        os.rename(path, new)

    def make_directory(self, path: str) -> None:
        """Make a directory, its parents being there; it may be there itself."""
        try:
            os.mkdir(path)
            os.chmod(path, 0o755)  # whatever the umask
        except FileExistsError:
            if not os.path.isdir(path):
                raise

    def remove_directory(self, path: str) -> None:
        """Remove a directory if it is there and empty."""
        try:
            os.rmdir(path)
        except OSError:
            pass

    def repair(self, path: str, mode: int, uid: int, gid: int) -> None:
        """Give a file whose content is right its owner and mode."""
        file = os.open(path, _READING)
        try:
            self._own(file, FileState(b"", mode, uid, gid))
        finally:
            os.close(file)

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def run(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        seconds: float = RUN_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; the end of its output is in ``stdout``, both kinds.

        Where it takes longer than ``seconds`` it is killed with all that it started,
        and TimeoutError is raised, as OSError is where it cannot be run.
        """
        # A file, not a pipe: what the program leaves running in the background may
        # hold a pipe open for ever.
        with tempfile.TemporaryFile() as output:
            program = subprocess.Popen(
                words,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
            try:
                status = program.wait(seconds)
            except subprocess.TimeoutExpired:
                _kill_group(program)
                raise TimeoutError(0, f"was killed after {seconds:.0f} s") from None
            except BaseException:  # an interrupt, which only we have heard
                _kill_group(program)
                raise
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - _OUTPUT_BYTES))
            said = output.read(_OUTPUT_BYTES).decode("utf-8", "replace")
        return subprocess.CompletedProcess(words, status, said)

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


def _open_at_once(path: str, flags: int) -> int:
    """Open what may be a pipe without waiting for its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def _kill_group(program: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(program.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    program.wait()
