"""What a template sees of the databases.

Every configuration record is a variable: ``qpsmtpd.RBLList`` is a property,
``DomainName`` a single value.  The other databases go by their names, as mappings of
key to record.  A property that the schema knows and the record lacks reads as its
default, so that an upgrade breaks no event; what neither knows is undefined.

Each read is recorded: that is how a line of a file is traced to what drives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from smeconf.database import Database, Document, Record
from smeconf.database.history import looks_secret
from smeconf.database.schema import Key, Schema, nearest
from smeconf.paths import Paths

DATABASES = ("accounts", "configuration", "domains", "hosts", "networks")

# Database, key, property; the property None for a single value, the key None for all.
Read = tuple[str, "str | None", "str | None"]


class Snapshot:
    """The databases as they were when each was first looked at: read once.

    ``on_read`` is called with each read while it is set.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._documents: dict[str, Document] = {}
        self._schemas: dict[str, Schema] = {}
        self.reads: set[Read] = set()
        self.secrets: set[str] = set()  # values that must not be shown
        self.last_read = ""
        self.on_read: Callable[[Read], None] | None = None
        # A template names the same few records again and again.
        self._found: dict[tuple[str, str], RecordView | str | None] = {}
        self._keys: dict[str, list[str]] = {}

    def note(self, database: str, key: str | None, name: str | None) -> None:
        """Record a read."""
        read = (database, key, name)
        self.reads.add(read)
        if key is not None:
            self.last_read = key if name is None else f"{key}{{{name}}}"
        if self.on_read is not None:
            self.on_read(read)

    def revisions(self) -> dict[str, int]:
        """Return the revision of each database that was looked at."""
        return {
            name: Database.open(name, self._paths).revision_of(document)
            for name, document in self._documents.items()
        }

    def document(self, name: str) -> Document:
        """Return a database's records.  Raises DatabaseError."""
        if name not in self._documents:
            self._documents[name] = Database.open(name, self._paths).read()
        return self._documents[name]

    def keys(self, name: str) -> list[str]:
        """Return the keys of a database in byte order.  Raises DatabaseError."""
        if name not in self._keys:
            self._keys[name] = self.document(name).keys()
        return list(self._keys[name])

    def schema(self, name: str) -> Schema:
        """Return what is known of a database."""
        if name not in self._schemas:
            self._schemas[name] = Schema.load(name, self._paths)
        return self._schemas[name]

    def find(self, database: str, key: str) -> RecordView | str | None:
        """Return a record, or the value of a single-value key; None if unknown."""
        place = (database, key)
        if place in self._found:
            found = self._found[place]
        else:
            found = self._found[place] = self._look_up(database, key)
        if isinstance(found, str):
            self.note(database, key, None)
        return found

    def is_secret(self, read: Read) -> bool:
        """Tell whether what was read must not be shown."""
        database, key, name = read
        if key is None:
            return False
        if looks_secret(name or key):
            return True
        stored = self.document(database).find(key)
        known = self.schema(database).find(key, stored.type if stored else None)
        if known is None:
            return False
        rule = known.find(name) if name is not None else known.value
        return rule is not None and rule.secret

    def _look_up(self, database: str, key: str) -> RecordView | str | None:
        stored = self.document(database).find(key)
        known = self.schema(database).find(key, stored.type if stored else None)
        if stored is None:
            if known is None:
                return None
            stored = Record(known.type or "")
            if known.value is not None:
                if known.value.default is None:
                    return None
                stored.type = known.value.default
        is_value = known.value is not None if known else not stored.properties
        if not is_value:
            return RecordView(self, database, key, stored, known)
        rule = known.value if known else None
        if stored.type and (looks_secret(key) or (rule is not None and rule.secret)):
            self.secrets.add(stored.type)
        return stored.type


class RecordView:
    """One record, as templates see it."""

    __slots__ = ("_known", "_snapshot", "database", "key", "record")

    def __init__(
        self,
        snapshot: Snapshot,
        database: str,
        key: str,
        record: Record,
        known: Key | None,
    ) -> None:
        self._snapshot = snapshot
        self.database = database
        self._known = known
        self.key = key
        self.record = record

    def find(self, name: str) -> str | None:
        """Return a property as stored, else its default; None if there is neither."""
        self._snapshot.note(self.database, self.key, name)
        value = self.record.properties.get(name)
        known = self._known.find(name) if self._known is not None else None
        if value is None:
            return known.default if known is not None else None
        if value and (looks_secret(name) or (known is not None and known.secret)):
            self._snapshot.secrets.add(value)
        return value

    def describe_missing(self, name: str) -> str:
        """Return what to say of a property that is not there."""
        names = list(self.record.properties)
        if self._known is not None:
            if name in self._known.properties:
                return f"{self.key}{{{name}}} is not set and has no default"
            names += self._known.properties
        return f"{self.key}{{{name}}} does not exist{nearest(name, names)}"


class DatabaseView:
    """One database, as templates see it: a mapping of key to record."""

    def __init__(self, snapshot: Snapshot, name: str) -> None:
        self._snapshot = snapshot
        self._name = name

    def keys(self) -> list[str]:
        """Return the keys in byte order."""
        self._snapshot.note(self._name, None, None)
        return self._snapshot.keys(self._name)

    def items(self) -> list[tuple[str, RecordView | str]]:
        """Return pairs of key and record, in the order of the keys."""
        return [(key, self[key]) for key in self.keys()]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, key: str) -> bool:
        self._snapshot.note(self._name, key, None)
        return key in self._snapshot.document(self._name)

    def __getitem__(self, key: str) -> RecordView | str:
        found = self._snapshot.find(self._name, key)
        if found is None:
            raise KeyError(key)
        return found

    def describe_missing(self, key: str) -> str:
        """Return what to say of a record that is not there."""
        return f"{self._name} has no record {key}{nearest(key, self.keys())}"

    def of_type(self, type: str) -> list[str]:
        """Return the keys of records of a type, in byte order."""
        document = self._snapshot.document(self._name)
        return [
            key
            for key in self.keys()
            if (raw := document.find_raw(key)) is not None
            and raw.partition("|")[0] == type
        ]
