"""Defaults and forced values: what a machine is given without being asked.

Defaults are those of the schema, and the site's files ``defaults/KEY/PROP`` before
them: the content of such a file is the value, without its last newline; ``type`` is
the record's type.  They are given where the property is absent; an empty one is there.
``force/KEY/PROP``, of the same form, holds whatever the database says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smeconf.database.record import Record
from smeconf.database.schema import Key, Property, Schema
from smeconf.database.store import DatabaseError, Transaction

TYPE = "type"


@dataclass(frozen=True, slots=True)
class Given:
    """One file of a tree ``defaults`` or ``force``."""

    path: str
    value: str


# Key -> property (or TYPE) -> what is given.
Tree = dict[str, dict[str, Given]]


def read_tree(directories: Sequence[str], warn: Callable[[str], None]) -> Tree:
    """Return what directories of the form ``KEY/PROP`` give, a later one going before.

    ``warn`` hears of each file directly below one of them, which is skipped.
    Raises DatabaseError for what cannot be read.
    """
    tree: Tree = {}
    try:
        for directory in directories:
            for key in _visible(directory) if os.path.isdir(directory) else ():
                place = os.path.join(directory, key)
                if not os.path.isdir(place):
                    warn(f"{place}: skipped: this is the place of directories KEY/PROP")
                    continue
                for name in _visible(place):
                    path = os.path.join(place, name)
                    tree.setdefault(key, {})[name] = Given(path, _content(path))
    except OSError as error:
        raise DatabaseError(
            f"{error.filename}: cannot be read: {error.strerror}"
        ) from error
    return tree


def give_defaults(records: Transaction, schema: Schema, tree: Tree) -> None:
    """Give records the keys and properties that they lack.

    Raises DatabaseError naming the file whose value the schema refuses.
    """
    for key in {**dict.fromkeys(schema.known_keys()), **tree}:
        record = records.find(key)
        given = tree.get(key, {})
        type = given.get(TYPE)
        of_type = record.type if record else type.value if type else None
        known = schema.find(key, of_type)
        values = _accepted(known, given)
        if known is not None and known.value is not None:
            values.setdefault(TYPE, known.value.default)
        elif known is not None:
            values = {TYPE: known.type, **known.defaults(), **values}
        if record is None:
            if values.get(TYPE) is None and known is not None:
                continue  # a single value without a default
            record = Record(values.get(TYPE) or "")
        for name, value in values.items():
            if name != TYPE and value is not None:
                record.properties.setdefault(name, value)
        records.put(key, record)


def force_values(records: Transaction, schema: Schema, tree: Tree) -> None:
    """Set what ``force`` gives.

    Raises DatabaseError naming the file whose value the schema refuses.
    """
    for key, given in tree.items():
        type = given.get(TYPE)
        record = records.find(key) or Record(type.value if type else "")
        known = schema.find(key, type.value if type else record.type)
        values = _accepted(known, given)
        record.type = values.pop(TYPE, record.type) or ""
        for name, value in values.items():
            record.properties[name] = value or ""
        records.put(key, record)


def _accepted(known: Key | None, given: dict[str, Given]) -> dict[str, str | None]:
    """Return the values of files, each of which the schema accepts."""
    for name, one in given.items():
        rule = _rule(known, name)
        fault = rule.find_fault(one.value) if rule else None
        if fault:
            raise DatabaseError(f"{one.path}: {fault}")
    return {name: one.value for name, one in given.items()}


def _rule(known: Key | None, name: str) -> Property | None:
    if known is None:
        return None
    return known.value if name == TYPE else known.find(name)


def _visible(directory: str) -> list[str]:
    names = (name for name in os.listdir(directory) if not name.startswith("."))
    return sorted(names, key=os.fsencode)


def _content(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().removesuffix(b"\n").decode("utf-8", "surrogateescape")
