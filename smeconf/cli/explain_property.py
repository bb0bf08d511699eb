"""What ``smeconf explain KEY [PROP]`` tells."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smeconf.cli.generated import Driven, GeneratedFiles
from smeconf.database import Database, DatabaseError, Entry
from smeconf.database.schema import Property, nearest
from smeconf.paths import Paths
from smeconf.templates.sources import Place, printable

SECRET = "(secret)"


class LastChanges:
    """The last change of each property of one database."""

    def __init__(self, database: Database) -> None:
        self._last = {(one.key, one.property): one for one in database.entries()}

    def find(self, key: str, name: str | None, value: str | None) -> Entry | None:
        """Return who set a property (name None: a single value) to what it is.

        None where the history does not know, or knows of another value: something
        else than smeconf has written the database since.
        """
        entry = self._last.get((key, name or ""))
        if entry is None or (not entry.is_secret and entry.new != value):
            return None
        return entry


@dataclass(frozen=True, slots=True)
class Explained:
    """All that is known of one property, or of a single value (name None).

    ``value`` is None where nothing is stored; a secret is not kept here.
    """

    database: str
    key: str
    name: str | None
    value: str | None
    rule: Property | None
    is_secret: bool
    change: Entry | None
    driven: Sequence[Driven]

    @property
    def shown_value(self) -> str:
        """The value in force, as it may be shown."""
        if self.value is not None:
            return shown(self.value)
        if self.default is None:
            return "(not set)"
        return f"{self.shown_default} (the default)"

    @property
    def shown_default(self) -> str:
        """The default, in words."""
        return "(none)" if self.default is None else shown(self.default)

    @property
    def default(self) -> str | None:
        """What holds while nothing is stored."""
        return None if self.rule is None else self.rule.default

    @property
    def kind(self) -> str:
        """The kind of the value, or the values to choose from."""
        if self.rule is None:
            return "(not in the schema)"
        return " or ".join(self.rule.values) if self.rule.values else self.rule.kind


class Subject:
    """A record or a single value of one database, about to be explained."""

    def __init__(
        self, paths: Paths, files: GeneratedFiles, database: str, key: str
    ) -> None:
        """Raises DatabaseError for a key that is unknown."""
        self._files = files
        self._database = Database.open(database, paths)
        self._key = key
        document = self._database.read()
        self._record = document.find(key)
        schema = self._database.schema
        type = self._record.type if self._record else None
        self._known = schema.find(key, type)
        if self._record is None and self._known is None:
            hint = nearest(key, [*document.keys(), *schema.known_keys()])
            raise DatabaseError(f"{database} {key}: there is no such record{hint}")
        self._changes = LastChanges(self._database)

    @property
    def is_value(self) -> bool:
        """Whether this is a single value, not a record of properties."""
        if self._known is not None:
            return self._known.value is not None
        return self._record is not None and not self._record.properties

    def names(self) -> list[str]:
        """Return the properties that are stored, known, or named by a template."""
        stored = self._record.properties if self._record else {}
        known = self._known.properties if self._known else {}
        named = self._files.names_of(self._key, self._database.name)
        return sorted({*stored, *known, *named} - {"*"}, key=str.lower)

    def explain(self, name: str | None) -> Explained:
        """Return what is known of a property, or (None) of the single value.

        Raises DatabaseError, with the nearest name, for a property that nobody knows.
        """
        if name is not None and (self.is_value or name not in self.names()):
            what = f"{self._database.name} {self._key} {name}"
            if self.is_value:
                raise DatabaseError(f"{what}: {self._key} is a single value")
            hint = nearest(name, self.names())
            raise DatabaseError(f"{what}: there is no such property{hint}")
        database, snapshot = self._database.name, self._files.snapshot
        value = self._value(name)
        is_secret = snapshot.is_secret((database, self._key, name))
        return Explained(
            database,
            self._key,
            name,
            SECRET if value and is_secret else value,
            self._rule(name),
            is_secret,
            self._changes.find(self._key, name, value),
            self._files.driven_by(self._key, name, database),
        )

    def _value(self, name: str | None) -> str | None:
        if self._record is None:
            return None
        return self._record.type if name is None else self._record.properties.get(name)

    def _rule(self, name: str | None) -> Property | None:
        if self._known is None:
            return None
        return self._known.value if name is None else self._known.find(name)


def as_text(one: Explained, files: GeneratedFiles) -> str:
    """Return what there is to tell of a property, for people: one screen."""
    where = "" if one.database == "configuration" else f"{one.database} "
    lines = [
        f"{where}{one.key} {one.name or ''}".rstrip(),
        f"value     {one.shown_value}",
        f"default   {one.shown_default:<14}  kind  {one.kind}",
    ]
    if one.rule is not None and one.rule.help:
        text = textwrap.wrap(one.rule.help.strip(), 70)
        lines += (f"{'' if n else 'help':<10}{line}" for n, line in enumerate(text))
    if one.value is not None:
        lines.append(f"set       {change_in_words(one.change)}")
    lines += _drives_in_words(one.driven)
    lines += (
        f"{'' if number else 'events':<10}{_event_in_words(name, files)}"
        for number, name in enumerate(_events_of(one))
    )
    return "\n".join(lines) + "\n"


def table_of(subject: Subject) -> str:
    """Return a line for each property of a record."""
    rows = []
    for name in subject.names():
        one = subject.explain(name)
        targets = " ".join(f"/{driven.file.output.path}" for driven in one.driven)
        rows.append((name, one.shown_value, targets))
    widths = [max((len(row[n]) for row in rows), default=0) for n in (0, 1)]
    width = min(widths[1], 40)
    return "".join(
        f"{name:<{widths[0]}}  {value:<{width}}  {targets}".rstrip() + "\n"
        for name, value, targets in rows
    )


def as_object(one: Explained, files: GeneratedFiles) -> dict[str, object]:
    """Return what there is to tell of a property, for scripts."""
    return {
        "database": one.database,
        "key": one.key,
        "property": one.name,
        "value": one.value if not one.is_secret else None,
        "is_set": one.value is not None,
        "secret": one.is_secret,
        "default": one.default,
        "kind": one.rule.kind if one.rule else None,
        "values": list(one.rule.values) if one.rule else [],
        "help": one.rule.help if one.rule else None,
        "set": change_as_object(one.change),
        "drives": [
            {
                "path": f"/{driven.file.output.path}",
                "fragments": [
                    {"path": path, "line": line} for path, line in driven.places
                ],
                "events": list(driven.file.events),
            }
            for driven in one.driven
        ],
        "events": {
            name: {word: list(acts) for word, acts in files.services[name].items()}
            for name in _events_of(one)
        },
    }


def change_in_words(change: Entry | None) -> str:
    """Return who set a value, when and why."""
    if change is None:
        return "(not in the history)"
    when = change.time.replace("T", " ")[:16]
    reason = f": {' '.join(change.reason.split())}" if change.reason else ""
    return f"{when} UTC by {change.who}{reason}, revision {change.revision}"


def change_as_object(change: Entry | None) -> dict[str, object] | None:
    """Return who set a value, when and why, for scripts."""
    if change is None:
        return None
    return {
        "time": change.time,
        "who": change.who,
        "reason": change.reason,
        "revision": change.revision,
    }


def shown(value: str) -> str:
    """Return a value as a terminal may show it."""
    return printable(value) or "(empty)"


def short(place: Place) -> str:
    """Return a fragment and its line, as much of it as tells it from others."""
    path, line = place
    folder, name = os.path.split(path)
    layer = "templates-custom/" if "/templates-custom/" in path else ""
    return f"{layer}…/{os.path.basename(folder)}/{name}:{line}"


def _drives_in_words(driven: Sequence[Driven]) -> Iterator[str]:
    if not driven:
        yield "drives    no generated file"
    width = max((len(one.file.output.path) for one in driven), default=0) + 1
    for number, one in enumerate(driven):
        word = "" if number else "drives"
        by = ", ".join(map(short, one.places))
        yield f"{word:<10}{'/' + one.file.output.path:<{width}}  by {by}"


def _events_of(one: Explained) -> list[str]:
    names = {name for driven in one.driven for name in driven.file.events}
    # First the one that people know.
    return sorted(names, key=lambda name: (name != "email-update", name))


def _event_in_words(name: str, files: GeneratedFiles) -> str:
    services = ", ".join(files.services[name])
    return f"{name} (services: {services})" if services else name
