"""``history`` and ``rollback``."""

from __future__ import annotations

from collections.abc import Iterator

from smeconf.cli.db import MISSING, Call, UsageError
from smeconf.cli.db_json import dump
from smeconf.database import DatabaseError, Entry, Record, Transaction

CHANGES = 2


def show_history(call: Call) -> int:
    """Put out the changes of all keys, of one, or of one property; oldest first.

    Returns 0, or 1 where there is none.
    """
    words = call.take(0, 2, "[KEY [PROP]]")
    entries = [
        entry
        for entry in call.database.entries()
        if [entry.key, entry.property][: len(words)] == words
    ]
    if call.options.json:
        call.output.append(dump([_as_object(entry) for entry in entries]))
    else:
        call.output += (_as_line(entry) for entry in entries)
    return 0 if entries else MISSING


def rollback(call: Call) -> int:
    """Undo all changes since a revision, property by property.

    Returns 0; with --plan what was put out was not done, and the status is 2 where
    there is something to do.  Raises DatabaseError, and changes nothing, where a
    property is no longer as the history left it, or a secret is among them.
    """
    (word,) = call.take(1, 1, "REVISION")
    if not (word.isascii() and word.isdigit()):
        raise UsageError("rollback takes a revision, a number as history shows it")
    wanted = int(word)
    if call.options.plan:
        call.output += _undo(call, call.database.rehearse(), wanted)
        return CHANGES if call.output else 0
    reason = call.options.reason or f"rollback to revision {wanted}"
    with call.database.transaction(reason) as records:
        call.output += _undo(call, records, wanted)
    return 0


def _undo(call: Call, records: Transaction, wanted: int) -> Iterator[str]:
    """Undo what came after a revision; yield a line a property."""
    changed: dict[tuple[str, str], list[Entry]] = {}
    last = 0
    for entry in records.entries():
        if entry.revision > max(last, wanted) + 1:
            raise _gap(call, entry.revision - 1)
        last = entry.revision
        if entry.revision > wanted:
            changed.setdefault((entry.key, entry.property), []).append(entry)
    now_at = records.revision
    if wanted > now_at:
        raise DatabaseError(f"{call.name}: the last revision is {now_at}")
    if now_at > max(last, wanted):
        raise _gap(call, now_at)
    states = {key: records.find(key) for key, _ in changed}
    goals = {key: _flat(record) for key, record in states.items()}
    for (key, name), entries in changed.items():
        where = f"{call.name} {key} {name}".rstrip()
        before, after = entries[0].old, entries[-1].new
        now = _flat(states[key]).get(name)
        if any(entry.is_secret for entry in entries):
            raise DatabaseError(
                f"{where}: is a secret, which the history does not keep"
            )
        if now != after:
            raise DatabaseError(
                f"{where}: is {now!r} now, not {after!r} as the history left it; "
                f"nothing was changed"
            )
        goals[key].pop(name, None)
        if before is not None:
            goals[key][name] = before
        if before != after:
            yield f"{key} {_shown(name, after, before)}\n"
    for key, goal in goals.items():
        if goal and "" not in goal:
            raise DatabaseError(
                f"{call.name} {key}: this would leave {', '.join(sorted(goal))} "
                f"without a record, by a change that is not in the history; "
                f"nothing was changed"
            )
    for key, goal in goals.items():
        _store(records, key, goal, states[key])


def _gap(call: Call, revision: int) -> DatabaseError:
    return DatabaseError(
        f"{call.name}: revision {revision} is not in the history, so it cannot be "
        f"undone; nothing was changed"
    )


def _store(
    records: Transaction, key: str, goal: dict[str, str], state: Record | None
) -> None:
    if "" in goal:
        type = goal.pop("")
        records.put(key, Record(type, goal))
    elif state is not None:
        records.delete(key)


def _flat(record: Record | None) -> dict[str, str]:
    return {} if record is None else {"": record.type, **record.properties}


def _as_line(entry: Entry) -> str:
    change = _shown(entry.property, entry.old, entry.new, entry.is_secret)
    reason = f"  ({' '.join(entry.reason.split())})" if entry.reason else ""
    return (
        f"{entry.revision:>5}  {entry.time}  {entry.who}  "
        f"{entry.key} {change}{reason}\n"
    )


def _shown(name: str, old: str | None, new: str | None, is_secret: bool = False) -> str:
    if is_secret:
        return f"{name}: a secret was changed"
    return f"{name or 'type'}: {_quoted(old)} -> {_quoted(new)}"


def _quoted(value: str | None) -> str:
    return "none" if value is None else repr(value)


def _as_object(entry: Entry) -> dict[str, object]:
    shown: dict[str, object] = {
        "revision": entry.revision,
        "time": entry.time,
        "who": entry.who,
        "reason": entry.reason,
        "key": entry.key,
        "property": entry.property or None,
    }
    if entry.is_secret:
        return {**shown, "secret": True}
    return {**shown, "old": entry.old, "new": entry.new}


VERBS = {"history": show_history, "rollback": rollback}
