"""``listadd`` and ``listdel``: one item of a comma list, the rest as it stands."""

from __future__ import annotations

from smeconf.cli.db import Call
from smeconf.cli.db_change import check_property, new_record
from smeconf.database import DatabaseError, Record, Transaction
from smeconf.database.lists import ListError, join_list, split_list
from smeconf.database.schema import Key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def add(call: Call, records: Transaction) -> int:
    """Put an item at the end of a list.

    Returns 0.  Raises DatabaseError for one that is in the list already: the same, or
    of two-part items (``zone:message``) one of the same first part.
    """
    key, name, item = call.take(3, 3, "KEY PROP ITEM")
    record, known, items = _list(call, records, key, name)
    if not item.strip(" \t"):
        raise DatabaseError(f"{call.name} {key} {name}: an item cannot be empty")
    head = _head_of(known, name)
    clash = next((one for one in items if head(one) == head(item)), None)
    if clash is not None:
        raise DatabaseError(f"{call.name} {key} {name}: already holds {clash}")
    return _store(call, records, key, name, [*items, item], record, known)


def remove(call: Call, records: Transaction) -> int:
    """Take an item out of a list: the same, or the one of that first part.

    Returns 0.  Raises DatabaseError where there is none.
    """
    key, name, item = call.take(3, 3, "KEY PROP ITEM")
    record, known, items = _list(call, records, key, name)
    head = _head_of(known, name)
    gone = [one for one in items if item in (one, head(one))]
    if not gone:
        raise DatabaseError(f"{call.name} {key} {name}: does not hold {item}")
    rest = [one for one in items if one not in gone]
    return _store(call, records, key, name, rest, record, known)


def _list(
    call: Call, records: Transaction, key: str, name: str
) -> tuple[Record, Key | None, list[str]]:
    """Return the record, what is known of it, and the items: of the property, else
    of its default, which is what is in force."""
    schema = call.database.schema
    record = records.find(key) or new_record(call, schema, key)
    known = schema.find(key, record.type)
    value = record.properties.get(name)
    rule = known.find(name) if known is not None else None
    if value is None and rule is not None:
        value = rule.default
    try:
        return record, known, split_list(value or "")
    except ListError as error:
        raise DatabaseError(f"{call.name} {key} {name}: {error}") from error


def _store(
    call: Call,
    records: Transaction,
    key: str,
    name: str,
    items: list[str],
    record: Record,
    known: Key | None,
) -> int:
    try:
        value = join_list(items)
    except ListError as error:
        raise DatabaseError(f"{call.name} {key} {name}: {error}") from error
    check_property(call, known, key, name, value)
    record.properties[name] = value
    records.put(key, record)
    return 0


def _head_of(known: Key | None, name: str) -> Callable[[str], str]:
    """Return what gives the part of an item that must be the only one of its list:
    of ``zone:message`` the zone, of others (IPv6 addresses hold colons) the whole."""
    rule = known.find(name) if known is not None else None
    if rule is not None and rule.kind.endswith("zones"):
        return lambda item: item.partition(":")[0].strip()
    return lambda item: item
