"""What remains to be done when a property was changed, said to a person.

A change is in force when the event has run that expands what the property drives; the
schema knows that of shipped fragments, and a site's own are searched for the name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from smeconf.database import Entry
from smeconf.database.schema import Schema
from smeconf.paths import Paths, shipped

# Where several events expand a file, the one that people know.
_USUAL = "email-update"


def what_remains(
    entries: Iterable[Entry], schema: Schema, types: dict[str, str], paths: Paths
) -> str:
    """Return a line that says which event puts these changes into force, or nothing.

    ``types`` are those of the changed records, by key.
    """
    targets: set[str] = set()
    for entry in entries:
        known = schema.find(entry.key, types.get(entry.key))
        rule = known and (known.find(entry.property) if entry.property else known)
        targets.update(rule.drives if rule else ())
        targets.update(_site_targets(entry.key, entry.property, paths))
    events = {target: found for target in targets if (found := _events(target, paths))}
    if not events:
        return ""
    # As few events as may be: nearly always it is one.
    names = sorted(
        {_USUAL if _USUAL in found else found[0] for found in events.values()}
    )
    count = f"{len(events)} file{'s' * (len(events) != 1)}"
    run = "; ".join(f"signal-event {name}" for name in names)
    return f"not in force yet: drives {count} of {', '.join(names)}; run {run}"


def _events(target: str, paths: Paths) -> list[str]:
    """Return the events that expand a target, sorted."""
    return sorted(
        event
        for root in (shipped("events"), os.path.join(paths.site, "events"))
        if os.path.isdir(root)
        for event in os.listdir(root)
        if os.path.exists(os.path.join(root, event, "templates2expand", target))
    )


def _site_targets(key: str, name: str, paths: Paths) -> Iterator[str]:
    """Yield the targets of the site whose fragments seem to name a property."""
    root = os.path.join(paths.site, "templates-custom")
    words = (f"{key}.{name}", f'{key}["{name}"]') if name else (key,)
    for place, _, files in os.walk(root):
        for file in files:
            try:
                with open(os.path.join(place, file), encoding="utf-8") as fragment:
                    text = fragment.read()
            except (OSError, UnicodeDecodeError):
                continue
            if any(word in text for word in words):
                # Of a directory of fragments, or of a template that is one file.
                yield os.path.relpath(place, root)
                yield os.path.relpath(os.path.join(place, file), root)
