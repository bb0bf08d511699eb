"""The lock of a database file, and its replacement.

A write takes an exclusive ``flock`` on ``FILE.lock`` (e-smith's name), writes the new
text beside the file, fsyncs, renames and fsyncs the directory; then the change is
durable, and every reader sees the old file or the new one.  The lock file is never
unlinked: e-smith does unlink it, which is how its parallel writers lose updates, so
the inode we locked is compared with the one that the path names, and the lock taken
again where they differ.
"""

from __future__ import annotations

import os


def take_lock(path: str) -> int:
    """Return a descriptor that holds the lock file of that path exclusively."""
    import fcntl

    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = os.fstat(lock)
            try:
                named = os.stat(path)
            except FileNotFoundError:
                named = None
        except BaseException:
            os.close(lock)
            raise
        if named and (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino):
            return lock
        os.close(lock)  # e-smith unlinked it while we waited


def replace_file(path: str, data: bytes) -> None:
    """Write ``data`` in place of a file: durable, whole or not at all.

    Owner and mode are kept.  A new file is for root and the group ``admin``, 0640.
    """
    directory, name = os.path.split(path)
    # One fixed name: the lock is held, so what lies there is litter of a killed run.
    beside = os.path.join(directory, f".{name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(beside, flags, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            _set_owner_and_mode(file, path)
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(beside, path)
    except BaseException:
        _unlink_if_there(beside)
        raise
    _fsync_directory(directory)


def _set_owner_and_mode(file: int, path: str) -> None:
    try:
        old = os.stat(path)
    except FileNotFoundError:
        os.fchmod(file, 0o640)
        if os.geteuid() == 0:
            os.fchown(file, 0, _admin_group())
        return
    new = os.fstat(file)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(file, old.st_uid, old.st_gid)
    os.fchmod(file, old.st_mode & 0o7777)


def _admin_group() -> int:
    import grp

    try:
        return grp.getgrnam("admin").gr_gid
    except KeyError:
        return 0


def _unlink_if_there(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _fsync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
