"""Databases brought up to date: migrations, then defaults, then forced values.

What is shipped comes first, then the site's trees below ``etc/smeconf/db/DATABASE``
(``ESMITH_DB_DEFAULTSDIR`` names another place for them).  A migration is a Python file
``migrate/NNname.py`` with a function that leaves alone what it has changed before:

    def migrate(records, say):
        record = records.find("qpsmtpd")
        ...
        records.put("qpsmtpd", record)
        say("why it had to be")

All three steps of a database are one transaction: where one fails nothing of it is
written, and the next database has its turn.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from types import ModuleType

from smeconf.database.defaults import (
    TYPE,
    force_values,
    give_defaults,
    read_tree,
)
from smeconf.database.history import looks_secret
from smeconf.database.record import Record
from smeconf.database.schema import Schema
from smeconf.database.store import Database, DatabaseError, Transaction
from smeconf.paths import Paths, shipped

Say = Callable[[str], None]
Records = dict[str, Record]

DATABASES = ("configuration", "accounts", "domains", "hosts", "networks")

_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


def initialize_all(paths: Paths, say: Say, warn: Say) -> bool:
    """Bring every database up to date: SME's, and those that the site has trees for.

    ``say`` hears, a line each, what migrations and forced values changed, ``warn``
    what went wrong.  Returns whether all went well.
    """
    names = list(DATABASES)
    site = _site_root(paths)
    for name in sorted(os.listdir(site)) if os.path.isdir(site) else ():
        is_tree = name[0] != "." and os.path.isdir(os.path.join(site, name))
        if is_tree and name not in names and _NAME.issuperset(name):
            names.append(name)
    return all([initialize(name, paths, say, warn) for name in names])


def initialize(name: str, paths: Paths, say: Say, warn: Say) -> bool:
    """Bring one database up to date; return whether that went well."""
    said: list[str] = []
    try:
        _initialize(name, paths, said.append, lambda line: warn(f"{name}: {line}"))
    except (DatabaseError, OSError) as error:
        warn(f"{name}: left as it was: {' '.join(str(error).split())}")
        return False
    for line in said:
        say(f"{name}: {line}")
    return True


def _initialize(name: str, paths: Paths, say: Say, warn: Say) -> None:
    database = Database.open(name, paths)
    schema = database.schema
    places = (
        os.path.join(shipped("db"), name),
        os.path.join(_site_root(paths), name),
    )
    defaults, forced = (
        read_tree([os.path.join(place, step) for place in places], warn)
        for step in ("defaults", "force")
    )
    migrations = [path for place in places for path in _migrations(place, warn)]
    with database.transaction("migrations, defaults and forced values") as records:
        before = _all(records)
        for path in migrations:
            _run(path, records, say)
        migrated = _all(records)
        give_defaults(records, schema, defaults)
        defaulted = _all(records)
        force_values(records, schema, forced)
        after = _all(records)
    touched = {*_differences(before, migrated), *_differences(defaulted, after)}
    for key, property in sorted(touched):
        line = _describe(schema, key, property, before.get(key), after.get(key))
        if line:
            say(line)


def _site_root(paths: Paths) -> str:
    return os.environ.get("ESMITH_DB_DEFAULTSDIR") or os.path.join(paths.site, "db")


def _migrations(place: str, warn: Say) -> list[str]:
    directory = os.path.join(place, "migrate")
    if not os.path.isdir(directory):
        return []
    names = sorted(os.listdir(directory), key=os.fsencode)
    names = [one for one in names if one[0] != "." and one != "__pycache__"]
    if other := [one for one in names if not one.endswith(".py")]:
        warn(f"{directory}: skipped, being no Python: {' '.join(other)}")
    return [os.path.join(directory, one) for one in names if one.endswith(".py")]


def _run(path: str, records: Transaction, say: Say) -> None:
    """Run one migration.  Raises DatabaseError with its file and line."""
    loader = SourceFileLoader("smeconf_migration", path)
    module = ModuleType(loader.name)
    module.__file__ = path
    try:
        # Not exec_module, which would leave its bytecode in the site's directory.
        exec(loader.source_to_code(loader.get_data(path), path), vars(module))
        module.migrate(records, say)
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == path
        ]
        line = lines[-1] if lines else getattr(error, "lineno", None) or 1
        raise DatabaseError(f"{path}:{line}: {type(error).__name__}: {error}") from (
            error
        )


def _all(records: Transaction) -> Records:
    return {key: records.find(key) or Record("") for key in records.keys()}  # noqa: SIM118


def _differences(old: Records, new: Records) -> Iterator[tuple[str, str]]:
    """Yield key and property of what differs, TYPE standing for the type."""
    for key in old.keys() | new.keys():
        before, after = _flat(old.get(key)), _flat(new.get(key))
        for name in before.keys() | after.keys():
            if before.get(name) != after.get(name):
                yield key, name


def _flat(record: Record | None) -> dict[str, str]:
    return {} if record is None else {TYPE: record.type, **record.properties}


def _describe(
    schema: Schema, key: str, name: str, old: Record | None, new: Record | None
) -> str:
    """Return what a property was and is, empty where that is the same in the end."""
    was, now = _flat(old).get(name), _flat(new).get(name)
    if was == now:
        return ""
    record = new or old
    known = schema.find(key, record.type if record else None)
    if name == TYPE and (known is None or known.value is not None):
        where, rule = key, known.value if known else None
    else:
        where, rule = f"{key} {name}", known.find(name) if known else None
    if (rule is not None and rule.secret) or looks_secret(where):
        return f"{where}: changed (it is a secret)"
    if was is None:
        return f"{where}: was absent, is now {now!r}"
    return f"{where}: was {was!r}, is now {'absent' if now is None else repr(now)}"
