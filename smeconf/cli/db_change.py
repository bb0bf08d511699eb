"""The verbs of ``db`` that change records, and ``batch``.

A change is checked against the schema before anything is written: a value that its
property refuses is an error that names what is accepted, a property that nobody knows
a warning to a person at a terminal.  ``--force`` overrides.
"""

from __future__ import annotations

import sys

from smeconf.cli.db import (
    MISSING,
    READING,
    Call,
    UsageError,
    is_at_terminal,
    say_what_remains,
)
from smeconf.database import DatabaseError, Record, Transaction
from smeconf.database.schema import Key, Property, Schema, nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Change = Callable[[Call, Transaction], int]


def _set(call: Call, records: Transaction) -> int:
    key, type, properties = _record_words(call)
    old = records.find(key)
    schema = call.database.schema
    if old and old.type == "service" and type != "service" and not call.options.force:
        raise DatabaseError(
            f"{call.name} {key}: is a service, and set would wipe its properties; "
            f"setprop changes properties (--force sets it all the same)"
        )
    check_record(call, schema, key, type, properties)
    records.put(key, Record(type, properties))
    return 0


def _setdefault(call: Call, records: Transaction) -> int:
    key, type, properties = _record_words(call)
    if type in ("", "0"):
        raise UsageError("setdefault takes a type that is neither empty nor 0")
    if records.find_raw(key) is None:
        check_record(call, call.database.schema, key, type, properties)
        records.put(key, Record(type, properties))
    return 0


def _delete(call: Call, records: Transaction) -> int:
    (key,) = call.take(1, 1, "KEY")
    try:
        records.delete(key)
    except KeyError:
        return MISSING
    return 0


def _settype(call: Call, records: Transaction) -> int:
    key, type = call.take(2, 2, "KEY TYPE")
    if not type:
        raise UsageError("settype takes a type that is not empty")
    record = records.find(key)
    if record is None:
        return MISSING
    _check_type(call, call.database.schema.find(key), key, type)
    record.type = type
    records.put(key, record)
    return 0


def _setprop(call: Call, records: Transaction) -> int:
    key, *words = call.take(3, 10**6, "KEY PROP VALUE [PROP VALUE]…")
    properties = _pairs(call, words)
    schema = call.database.schema
    record = records.find(key)
    if record is None:
        record = new_record(call, schema, key)
    known = schema.find(key, record.type)
    for name, value in properties.items():
        check_property(call, known, key, name, value)
    if call.options.expect is not None:
        _check_expected(call, records, key, properties)
    record.properties.update(properties)
    records.put(key, record)
    return 0


def _check_expected(
    call: Call, records: Transaction, key: str, properties: dict[str, str]
) -> None:
    """Refuse where the property is not what --expect says; absent counts as empty."""
    if len(properties) != 1:
        raise UsageError("--expect goes with one property")
    (name,) = properties
    record = records.find(key) or Record("")
    now = record.properties.get(name, "")
    if now != call.options.expect:
        is_secret = records.is_secret(key, name)
        fault = "is not" if is_secret else f"is {now!r}, not {call.options.expect!r}"
        raise DatabaseError(
            f"{call.name} {key} {name}: {fault} as expected; nothing was changed"
        )


def _listadd(call: Call, records: Transaction) -> int:
    from smeconf.cli.db_list import add

    return add(call, records)


def _listdel(call: Call, records: Transaction) -> int:
    from smeconf.cli.db_list import remove

    return remove(call, records)


def _delprop(call: Call, records: Transaction) -> int:
    key, *names = call.take(2, 10**6, "KEY PROP…")
    record = records.find(key)
    if record is not None:
        for name in names:
            record.properties.pop(name, None)
        records.put(key, record)
    return 0


CHANGING: dict[str, Change] = {
    "set": _set,
    "setdefault": _setdefault,
    "delete": _delete,
    "settype": _settype,
    "setprop": _setprop,
    "delprop": _delprop,
    "listadd": _listadd,
    "listdel": _listdel,
}


def batch(call: Call) -> int:
    """Run the verbs of standard input in one transaction, all or nothing.

    Returns 0.  Raises DatabaseError naming the line that failed; then nothing of it
    was written.
    """
    call.take(0, 0, "no words: its verbs come from standard input, a line each")
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    with call.database.transaction(call.options.reason) as records:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip(" \t\r") and not line.lstrip(" \t\r").startswith("#"):
                call.output += _batch_line(call, records, number, line)
    say_what_remains(call, records)
    return 0


def _batch_line(call: Call, records: Transaction, number: int, line: str) -> list[str]:
    from smeconf.cli.db_words import split_line

    try:
        verb, *words = split_line(line)
        one = Call(verb, words, call.database, call.paths, call.options)
        act = CHANGING.get(verb) or READING.get(verb)
        if act is None:
            raise UsageError(f"no verb {verb}" + nearest(verb, [*CHANGING, *READING]))
        if act(one, records) != 0:
            raise DatabaseError(f"{call.name}: {' '.join([verb, *words[:2]])}: missing")
    except (ValueError, UsageError, DatabaseError) as error:
        raise DatabaseError(
            f"line {number}: {error}; nothing of this batch was written"
        ) from None
    return one.output


def _record_words(call: Call) -> tuple[str, str, dict[str, str]]:
    key, type, *words = call.take(2, 10**6, "KEY TYPE [PROP VALUE]…")
    if not key:
        raise UsageError(f"{call.verb} takes a key that is not empty")
    return key, type, _pairs(call, words)


def _pairs(call: Call, words: list[str]) -> dict[str, str]:
    if len(words) % 2:
        # Not which lacks one: of a value in several words, that would be a part of it.
        raise UsageError(f"{call.verb} takes a value for each property")
    return dict(zip(words[::2], words[1::2], strict=True))


def new_record(call: Call, schema: Schema, key: str) -> Record:
    """Return the record that the schema gives a key that does not exist yet."""
    known = schema.find(key) if schema.knows_key(key) else None
    if known is None:
        raise DatabaseError(
            f"{call.name} {key}: no such key"
            + nearest(key, schema.known_keys())
            + " (set KEY TYPE makes a new one)"
        )
    if known.value is not None:
        return Record(known.value.default or "")
    return Record(known.type or "", known.defaults())


def check_record(
    call: Call, schema: Schema, key: str, type: str, properties: dict[str, str]
) -> None:
    """Raise DatabaseError for a type or a value of a record that is refused."""
    known = schema.find(key, type)
    _check_type(call, known, key, type)
    for name, value in properties.items():
        check_property(call, known, key, name, value)


def _check_type(call: Call, known: Key | None, key: str, type: str) -> None:
    if known is None or call.options.force:
        return
    if known.value is not None:
        _refuse_fault(f"{call.name} {key}", known.value, type)
    elif type != known.type:
        raise DatabaseError(
            f"{call.name} {key}: its type is {known.type}, not {type!r}; "
            f"setprop changes properties (--force sets it all the same)"
        )


def check_property(
    call: Call, known: Key | None, key: str, name: str, value: str
) -> None:
    """Raise DatabaseError for a value that its property refuses; warn of names that
    nobody knows, and of obsolete ones."""
    if known is None:
        return
    rule = known.find(name)
    if rule is None:
        if is_at_terminal():  # a script would pay for finding the nearest name
            hint = nearest(name, list(known.properties))
            _warn(f"{call.name} {key}: warning: no property {name} is known{hint}")
        return
    if rule.obsolete and is_at_terminal():
        _warn(f"{call.name} {key} {name}: warning: obsolete: {rule.obsolete}")
    if not call.options.force:
        _refuse_fault(f"{call.name} {key} {name}", rule, value)


def _warn(text: str) -> None:
    sys.stderr.write(text + "\n")


def _refuse_fault(where: str, rule: Property, value: str) -> None:
    fault = rule.find_fault(value)
    if fault is not None:
        raise DatabaseError(f"{where}: {fault} (--force stores it all the same)")
