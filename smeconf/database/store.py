"""Databases: read them, and change them so that no change is lost.

A change is made under the file's lock, on what the file holds then, and written with
its history before the lock is let go; when the context ends it is durable.

``config setprop`` runs through this module: it imports what a write needs, no more.
"""

from __future__ import annotations

import os

from smeconf.database.files import replace_file, take_lock
from smeconf.database.history import (
    Entry,
    History,
    HistoryError,
    changes_between,
    looks_secret,
)
from smeconf.database.record import Document, FormatError, Record
from smeconf.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from smeconf.database.schema import Schema


_NOTHING: Mapping[str, Record | None] = {}


class DatabaseError(Exception):
    """A refused change or an unreadable file: one line for the administrator."""


class Database:
    """One database file, and the history of its changes.

    ``path`` is the file; it need not exist yet (an empty database).  Made this way,
    its history lies beside it; :meth:`open` finds a database by its name.
    """

    __slots__ = ("_paths", "_schema", "history", "name", "path")

    def __init__(
        self, path: str, name: str | None = None, paths: Paths | None = None
    ) -> None:
        self.path = path
        self.name = name or os.path.basename(path)
        self._paths = paths
        self._schema: Schema | None = None
        self.history = History(_history_path(path, paths))

    @classmethod
    def open(cls, name: str, paths: Paths | None = None) -> Database:
        """Return the database of that name (``configuration``, ``domains``, …), or
        of that path, as the command ``db`` finds it."""
        paths = paths or Paths()
        return cls(paths.database(name), os.path.basename(name), paths)

    @property
    def schema(self) -> Schema:
        """What is known of its keys and properties.

        Raises DatabaseError where a file of the site's own schema cannot be read.
        """
        if self._schema is None:
            from smeconf.database.schema import Schema

            try:
                self._schema = Schema.load(self.name, self._paths or Paths())
            except ValueError as error:
                raise DatabaseError(str(error)) from error
        return self._schema

    def read(self) -> Document:
        """Return the records as they are now.

        Raises DatabaseError where the file cannot be read.
        """
        return Document(self._read_text())

    def transaction(self, reason: str = "") -> Transaction:
        """Return a context in which records are read and changed under the lock.

        Leaving it writes all changes at once, durably, and their history with
        ``reason``; leaving it by an exception writes nothing.
        """
        return Transaction(self, reason)

    def rehearse(self) -> Transaction:
        """Return records to try changes on: nothing is locked, nothing ever written."""
        trial = Transaction(self)
        trial._document = self.read()
        return trial

    def entries(self) -> Iterator[Entry]:
        """Yield the history, oldest first, without what a killed write left.

        Raises DatabaseError where it cannot be read.
        """
        document = self.read()
        try:
            yield from self.history.read(self.revision_of(document))
        except (OSError, HistoryError) as error:
            raise DatabaseError(f"{self.history.path}: {error}") from error

    def revision_of(
        self, document: Document, before: Mapping[str, Record | None] = _NOTHING
    ) -> int:
        """Return the last revision of the history that was written to the database.

        Lines behind it are those of a write that was killed before it replaced the
        file: one revision, whose old values still stand.  A file that e-smith wrote
        names no revision, and one that came back from a backup an old one; then the
        whole history holds.  ``before`` are the records that were changed since the
        document was read, as they were.  Raises OSError and HistoryError.
        """
        last, named = self.history.last_revision(), document.revision
        if named is not None and (named >= last or named < last - 1):
            return max(named, last)
        unwritten = [
            entry
            for entry in self.history.read()
            if entry.revision == last and not entry.is_secret
        ]
        # Of secrets alone nothing can be compared; then the revision in the head tells.
        is_void = (named is not None or unwritten) and all(
            entry.old == _stored(document, before, entry.key, entry.property)
            for entry in unwritten
        )
        return last - 1 if is_void else last

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
    """Records of one database, locked; made by :meth:`Database.transaction`.

    Works as a mapping of key to :class:`RecordProxy`, too:
    ``t["qpsmtpd"]["RBLList"] = "zen.example"``.
    """

    def __init__(self, database: Database, reason: str = "") -> None:
        self.database = database
        self._reason = reason
        # The lock and the new file lie beside the real file, not beside a symlink.
        self._path = os.path.realpath(database.path)
        self._lock = -1
        self._document = Document("")
        self._before: dict[str, Record | None] = {}  # of what was changed
        self.written: list[Entry] = []  # what was changed, once it is durable

    def __enter__(self) -> Self:
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._lock = take_lock(self._path + ".lock")
        except OSError as error:
            raise self._error("cannot be locked for writing", error) from error
        try:
            self._document = self.database.read()
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
            if kind is None and self._before:
                self._write()
        finally:
            os.close(self._lock)

    def __getitem__(self, key: str) -> RecordProxy:
        if self._document.find_raw(key) is None:
            raise KeyError(key)
        return RecordProxy(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __contains__(self, key: str) -> bool:
        return key in self._document

    def find(self, key: str) -> Record | None:
        """Return a copy of a record, or None."""
        return self._document.find(key)

    def find_raw(self, key: str) -> str | None:
        """Return the stored text of a record, or None."""
        return self._document.find_raw(key)

    def keys(self) -> list[str]:
        """Return the keys in byte order."""
        return self._document.keys()

    def put(self, key: str, record: Record) -> None:
        """Set a whole record.

        Raises DatabaseError where the file format cannot hold it.
        """
        before = self._document.find(key)
        try:
            differs = self._document.put(key, record)
        except FormatError as error:
            raise DatabaseError(f"{self.database.name} {key}: {error}") from None
        if differs:
            self._before.setdefault(key, before)

    def __delitem__(self, key: str) -> None:
        self.delete(key)

    def delete(self, key: str) -> None:
        """Remove a record.  Raises KeyError if there is none."""
        before = self._document.find(key)
        self._document.delete(key)
        self._before.setdefault(key, before)

    def entries(self) -> Iterator[Entry]:
        """Yield the history, oldest first, as :meth:`Database.entries` does."""
        return self.database.entries()

    @property
    def revision(self) -> int:
        """The revision that the records are at, as :meth:`Database.revision_of`."""
        return self.database.revision_of(self._document, self._before)

    def is_secret(self, key: str, name: str) -> bool:
        """Tell whether a property (with an empty name: a single value) is a secret,
        now or before this transaction."""
        return self._secrets(key, self._document.find(key), self._before.get(key))(name)

    def _write(self) -> None:
        import time

        history = self.database.history
        try:
            after = self.revision
            entries = self._entries(after + 1)
            if not entries:
                return  # changed, and changed back
            history.append(entries, after)
        except (OSError, HistoryError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise DatabaseError(f"{history.path}: cannot be written: {why}") from error
        text = self._document.text(f"{time.ctime()} (revision {after + 1})")
        try:
            replace_file(self._path, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise self._error("cannot be written", error) from error
        self.written = entries

    def _entries(self, revision: int) -> list[Entry]:
        import time

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        who = _who()
        entries: list[Entry] = []
        for key, before in self._before.items():
            after = self._document.find(key)
            is_secret = self._secrets(key, before, after)
            entries += (
                Entry(revision, now, who, self._reason, key, *change)
                for change in changes_between(before, after, is_secret)
            )
        return entries

    def _secrets(self, key: str, *states: Record | None) -> Callable[[str], bool]:
        """Return what tells which properties of a record, in any of its states, are
        secret."""

        def is_secret(name: str) -> bool:
            return any(
                self._is_secret(key, state, name)
                for state in states
                if state is not None
            )

        return is_secret

    def _is_secret(self, key: str, state: Record, name: str) -> bool:
        if not name and state.properties:
            return False  # the type of a record is none
        known = self.database.schema.find(key, state.type)
        rule = None
        if known is not None:
            rule = known.find(name) if name else known.value
        return looks_secret(name or key) or (rule is not None and rule.secret)

    def _error(self, what: str, error: OSError) -> DatabaseError:
        return DatabaseError(f"{self._path}: {what}: {error.strerror}")


class RecordProxy:
    """A record within a transaction: property by property, as a mapping."""

    __slots__ = ("_key", "_transaction")

    def __init__(self, transaction: Transaction, key: str) -> None:
        self._transaction = transaction
        self._key = key

    @property
    def type(self) -> str:
        """The record's type."""
        return self._record().type

    def __getitem__(self, name: str) -> str:
        return self._record().properties[name]

    def __setitem__(self, name: str, value: str) -> None:
        record = self._record()
        record.properties[name] = value
        self._transaction.put(self._key, record)

    def __delitem__(self, name: str) -> None:
        record = self._record()
        del record.properties[name]
        self._transaction.put(self._key, record)

    def __contains__(self, name: str) -> bool:
        return name in self._record().properties

    def __iter__(self) -> Iterator[str]:
        return iter(self._record().properties)

    def __len__(self) -> int:
        return len(self._record().properties)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return a property, or the default."""
        return self._record().properties.get(name, default)

    def _record(self) -> Record:
        record = self._transaction.find(self._key)
        if record is None:
            raise KeyError(self._key)
        return record


def _stored(
    document: Document, before: Mapping[str, Record | None], key: str, name: str
) -> str | None:
    """Return a property, or with an empty name the type, of a record as it was."""
    record = before[key] if key in before else document.find(key)
    if record is None:
        return None
    return record.properties.get(name) if name else record.type


def _history_path(path: str, paths: Paths | None) -> str:
    """Return where the history of a database lies: with the state of the machine
    whose database it is, else beside the file."""
    directory, name = os.path.split(os.path.realpath(path))
    if paths is not None and directory == os.path.realpath(paths.databases):
        return os.path.join(paths.state, "history", name)
    return os.path.join(directory, f".{name}.history")


def _who() -> str:
    """Return who makes a change: the caller, and whom sudo says it is."""
    import pwd

    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    person = os.environ.get("SUDO_USER")
    return f"{person} as {name}" if person and person != name else name
