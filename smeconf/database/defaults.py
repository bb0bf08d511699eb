"""Defaults: what a new machine, or one with a new version, is given."""

from __future__ import annotations

from smeconf.database.record import Record
from smeconf.database.schema import Schema
from smeconf.database.store import Database
from smeconf.paths import Paths


def apply_defaults(name: str, paths: Paths) -> None:
    """Give a database the keys and properties that the schema has defaults for.

    What is there stays, an empty value too.  Raises DatabaseError.
    """
    schema = Schema.load(name, paths)
    with Database(paths.database(name)).transaction() as records:
        for key in schema.known_keys():
            known = schema.find(key)
            assert known is not None
            record = records.find(key)
            if known.value is not None:
                if record is None and known.value.default is not None:
                    records.put(key, Record(known.value.default))
                continue
            if record is None:
                record = Record(known.type or "")
            for property_name, default in known.defaults().items():
                record.properties.setdefault(property_name, default)
            records.put(key, record)
