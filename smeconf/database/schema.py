"""What is known of keys and properties: kind, default, help.

The one source is ``db/DATABASE/KEY.toml`` (for databases whose keys are free, such as
``domains``: ``db/DATABASE/types/TYPE.toml``), compiled into a module when the package
is built; a site's own files below ``etc/smeconf/db`` are read beside it.
"""

from __future__ import annotations

import os

from smeconf.database.values import LIST_KINDS, check
from smeconf.paths import Paths, shipped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Property:
    """One property, or the value of a single-value key.

    ``kind`` names a check of values.py; ``values`` closes the choice instead;
    ``optional`` allows the empty value; ``default`` is None where none is written.

    ``obsolete`` says what to use instead, ``since`` the version of smeconf that brought
    what older systems did not have; both are empty for most.  ``drives`` are the
    targets whose shipped templates name it.
    """

    __slots__ = (
        "default",
        "drives",
        "help",
        "kind",
        "maximum",
        "minimum",
        "obsolete",
        "optional",
        "secret",
        "since",
        "values",
    )

    def __init__(self, table: dict[str, Any]) -> None:
        self.kind: str = table.get("kind", "text")
        self.default: str | None = table.get("default")
        self.help: str = table.get("help", "")
        self.values: tuple[str, ...] = tuple(table.get("values", ()))
        self.minimum: int = table.get("minimum", 0)
        self.maximum: int | None = table.get("maximum")
        self.optional: bool = table.get("optional", self.default == "")
        self.secret: bool = table.get("secret", False)
        self.obsolete: str = table.get("obsolete", "")
        self.since: str = table.get("since", "")
        self.drives: tuple[str, ...] = tuple(table.get("drives", ()))

    @property
    def is_list(self) -> bool:
        """Whether the value is a comma list, one for listadd and listdel."""
        return not self.values and self.kind in LIST_KINDS

    def find_fault(self, value: str) -> str | None:
        """Return None where ``value`` is accepted, else why not, in one clause."""
        return check(self, value)


class Key:
    """What is known of one key (or of all records of one type).

    ``type`` is the record's type, None for a single-value key, whose ``value`` then
    says what it holds.  A property ``*`` stands for all those without a name of their
    own: the record is also someone else's, or its properties are entries of a list.
    ``drives`` are the targets that depend on there being such a record.
    """

    __slots__ = ("drives", "help", "properties", "type", "value")

    def __init__(self, table: dict[str, Any]) -> None:
        self.type: str | None = table.get("type")
        self.help: str = table.get("help", "")
        self.value = Property(table) if self.type is None else None
        self.drives: tuple[str, ...] = tuple(table.get("drives", ()))
        self.properties = {
            name: Property(entry)
            for name, entry in table.items()
            if isinstance(entry, dict)
        }

    def find(self, name: str) -> Property | None:
        """Return what is known of a property, by its name or as one of ``*``."""
        return self.properties.get(name) or self.properties.get("*")

    def defaults(self) -> dict[str, str]:
        """Return the properties that a new record begins with."""
        return {
            name: known.default
            for name, known in self.properties.items()
            if known.default is not None
        }


class Schema:
    """What is known of one database."""

    __slots__ = ("_tables",)

    def __init__(self, tables: dict[str, dict[str, Any]]) -> None:
        self._tables = tables

    @classmethod
    def load(cls, database: str, paths: Paths) -> Schema:
        """Return the schema of a database by its name, with the site's own files.

        Raises ValueError naming the file where a site's TOML cannot be read.
        """
        tables = _shipped_tables(database)
        site = os.path.join(paths.site, "db", database)
        if os.path.isdir(site):
            from smeconf.database.compile import compile_database, merge

            tables = merge(tables, compile_database(site))
        return cls(tables)

    def find(self, key: str, type: str | None = None) -> Key | None:
        """Return what is known of a key, else of records of that ``type``."""
        table = self._tables.get(key)
        if table is None and type is not None:
            table = self._tables.get(f"types/{type}")
        return None if table is None else Key(table)

    def known_keys(self) -> list[str]:
        """Return the keys that are known by name."""
        return [key for key in self._tables if not key.startswith("types/")]

    def known_types(self) -> list[str]:
        """Return the types of records that are known whatever their key."""
        return [key[6:] for key in self._tables if key.startswith("types/")]

    def knows_key(self, key: str) -> bool:
        """Tell whether this very key is known."""
        return key in self._tables


def nearest(word: str, words: list[str]) -> str:
    """Return ``; did you mean X?`` where one of ``words`` looks like ``word``."""
    import difflib

    by_lower = {known.lower(): known for known in words}
    match = difflib.get_close_matches(word.lower(), by_lower, 1, 0.7)
    return f"; did you mean {by_lower[match[0]]}?" if match else ""


def _shipped_tables(database: str) -> dict[str, dict[str, Any]]:
    try:
        from smeconf.database._compiled import SCHEMA
    except ImportError:  # a checkout that was never built
        from smeconf.database.compile import compile_tree

        return compile_tree(shipped("db")).get(database, {})
    return SCHEMA.get(database, {})
