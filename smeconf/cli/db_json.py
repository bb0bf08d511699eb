"""JSON: ``export``, ``import``, and the form that --json puts out.

A record is ``{"type": …, "properties": {…}}``.  Bytes of a value that are no UTF-8
come out as lone surrogates (``\\udcff``), and go in again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from smeconf.cli.db import Call
from smeconf.cli.db_change import check_record
from smeconf.database import DatabaseError, Record, Transaction

CHANGES = 2


def dump(value: object) -> str:
    """Return ``value`` as JSON text with a newline at its end."""
    return json.dumps(value, indent=2) + "\n"


def as_json(records: Mapping[str, Record]) -> dict[str, object]:
    """Return records in the form that ``import`` reads."""
    return {
        key: {
            "type": record.type,
            "properties": dict(sorted(record.properties.items())),
        }
        for key, record in records.items()
    }


def export_records(call: Call) -> int:
    """Put out all records.  Returns 0, an empty database's ``{}`` too."""
    call.take(0, 0, "no words")
    document = call.database.read()
    records = {key: document.find(key) for key in document}
    call.output.append(dump(as_json({k: r for k, r in records.items() if r})))
    return 0


def import_records(call: Call) -> int:
    """Set the records that standard input holds, ``null`` deleting one; put out what
    changes.  Others stay.

    Returns 0; with --plan nothing is written, and the status is 2 where something
    would change.  Raises DatabaseError, and writes nothing, for what cannot be read
    or is refused.
    """
    call.take(0, 0, "no words: records come from standard input")
    wanted = _read(call, sys.stdin.buffer.read())
    if call.options.plan:
        _set_all(call, call.database.rehearse(), wanted)
        return CHANGES if call.output else 0
    with call.database.transaction(call.options.reason) as records:
        _set_all(call, records, wanted)
    return 0


def _set_all(
    call: Call, records: Transaction, wanted: dict[str, Record | None]
) -> None:
    for key, record in wanted.items():
        call.output += _set(call, records, key, record)


def _set(call: Call, records: Transaction, key: str, new: Record | None) -> list[str]:
    """Set or delete a record; return a line for each difference."""
    old = records.find(key)
    if new is None:
        if old is None:
            return []
        line = f"- {key}={_shown_type(records, key, old)}\n"
        records.delete(key)
        return [line]
    if new == old:
        return []
    check_record(call, call.database.schema, key, new.type, new.properties)
    records.put(key, new)
    if old is None:
        return [f"+ {key}={_shown_type(records, key, new)}\n"]
    lines = []
    if old.type != new.type:
        change = f"{old.type} -> {new.type}"
        if records.is_secret(key, ""):
            change = "a secret differs"
        lines.append(f"~ {key}={change}\n")
    for name in sorted(old.properties.keys() | new.properties.keys()):
        before, after = old.properties.get(name), new.properties.get(name)
        if before != after:
            change = f"{_quoted(before)} -> {_quoted(after)}"
            if records.is_secret(key, name):
                change = "a secret differs"
            lines.append(f"~ {key} {name}: {change}\n")
    return lines


def _shown_type(records: Transaction, key: str, record: Record) -> str:
    return "(a secret)" if records.is_secret(key, "") else record.type


def _read(call: Call, data: bytes) -> dict[str, Record | None]:
    try:
        table = json.loads(data)
    except RecursionError:
        raise DatabaseError(f"{call.name}: standard input is no JSON of ours") from None
    except ValueError as error:
        raise DatabaseError(
            f"{call.name}: standard input is no JSON: {error}"
        ) from None
    if not isinstance(table, dict):
        raise DatabaseError(f"{call.name}: standard input is no object of records")
    return {key: _record(call, key, value) for key, value in table.items()}


def _record(call: Call, key: str, value: object) -> Record | None:
    if value is None:
        return None
    if isinstance(value, dict) and value.keys() <= {"type", "properties"}:
        type, properties = value.get("type"), value.get("properties", {})
        if isinstance(type, str) and isinstance(properties, dict):
            texts = [*properties, *properties.values()]
            if all(isinstance(text, str) for text in texts):
                return Record(type, properties)
    raise DatabaseError(
        f'{call.name} {key}: a record is {{"type": text, "properties": {{name: text}}}}'
    )


def _quoted(value: str | None) -> str:
    return "none" if value is None else repr(value)


VERBS = {"export": export_records, "import": import_records}
