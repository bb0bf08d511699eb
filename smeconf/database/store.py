"""The file of a database: read it, and change it so that no change is lost.

A write takes an exclusive ``flock`` on ``FILE.lock`` (e-smith's name), reads the file
again, changes it, writes the new text beside it, fsyncs, renames and fsyncs the
directory; then the change is durable and every reader sees the old file or the new
one.  The lock file is never unlinked: e-smith does unlink it, which is how its
parallel writers lose updates, so the inode we locked is compared with the one that
the path names and the lock taken again where they differ.

``config setprop`` runs through this module: it imports what a write needs, no more.
"""

from __future__ import annotations

import os

from smeconf.database.record import Document, FormatError, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self


class DatabaseError(Exception):
    """A refused change or an unreadable file: one line for the administrator."""


class Database:
    """One database file.

    ``path`` is the file; it need not exist yet (an empty database).
    """

    __slots__ = ("name", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)

    def read(self) -> Document:
        """Return the records as they are now.

        Raises DatabaseError where the file cannot be read.
        """
        return Document(self._read_text())

    def transaction(self) -> Transaction:
        """Return a context in which records are read and changed under the lock.

        Leaving it writes all changes at once, durably; leaving it by an exception
        writes nothing.
        """
        return Transaction(self)

    def _read_text(self) -> str:
        try:
            with open(self.path, "rb") as file:
                return file.read().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise DatabaseError(f"{self.path}: cannot be read: {error.strerror}") from (
                error
            )


class Transaction:
    """Records of one database, locked; made by :meth:`Database.transaction`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # The lock and the new file lie beside the real file, not beside a symlink.
        self._path = os.path.realpath(database.path)
        self._lock = -1
        self._document = Document("")

    def __enter__(self) -> Self:
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._lock = _take_lock(self._path + ".lock")
        except OSError as error:
            raise self._error("cannot be locked for writing", error) from error
        try:
            self._document = self._database.read()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._document.changed:
                self._write()
        finally:
            os.close(self._lock)

    def find(self, key: str) -> Record | None:
        """Return a copy of a record, or None."""
        return self._document.find(key)

    def find_raw(self, key: str) -> str | None:
        """Return the stored text of a record, or None."""
        return self._document.find_raw(key)

    def keys(self) -> list[str]:
        """Return the keys in byte order."""
        return self._document.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def put(self, key: str, record: Record) -> None:
        """Set a whole record.

        Raises DatabaseError where the file format cannot hold it.
        """
        try:
            self._document.put(key, record)
        except FormatError as error:
            raise DatabaseError(f"{self._database.name} {key}: {error}") from None

    def delete(self, key: str) -> None:
        """Remove a record.  Raises KeyError if there is none."""
        self._document.delete(key)

    def _write(self) -> None:
        import time

        text = self._document.text(time.ctime())
        try:
            _replace(self._path, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise self._error("cannot be written", error) from error

    def _error(self, what: str, error: OSError) -> DatabaseError:
        return DatabaseError(f"{self._path}: {what}: {error.strerror}")


def _take_lock(path: str) -> int:
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


def _replace(path: str, data: bytes) -> None:
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
