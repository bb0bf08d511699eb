"""What an event is: a directory, as SME has them.

    templates2expand/PATH      an empty file for each target; the tree is the paths
    Snn<name>                  an action: an executable in any language
    services2adjust/SERVICE    what the service is told, a word a line

It is shipped in ``events/NAME``, and what the site has in ``etc/smeconf/events/NAME``
is added: an action of the same name replaces the shipped one, a link to ``/dev/null``
switches it off.  An action that is an empty file, or a link that leads nowhere, stands
for the shared action of that name in ``events/actions``, the site's before ours.

``S05generic_template_expand`` and ``S90adjust-services`` have their places among the
actions, in byte order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from smeconf.database.schema import nearest
from smeconf.paths import Paths, shipped
from smeconf.services import read_actions

EXPAND, ADJUST = "S05generic_template_expand", "S90adjust-services"
_SHARED = "actions"


class UnknownEvent(Exception):
    """An event that has no directory."""


@dataclass(frozen=True, slots=True)
class Event:
    """What an event does.

    ``steps`` are the names of its actions with their paths, in order, and at their
    places EXPAND and ADJUST; ``services`` are told a sequence of actions each.
    """

    name: str
    targets: Sequence[str]
    steps: Mapping[str, str]
    services: Mapping[str, Sequence[str]]


def find_event(name: str, paths: Paths) -> Event:
    """Return an event, the site's additions included.  Raises UnknownEvent."""
    places = [
        place for root in _roots(paths) if os.path.isdir(place := f"{root}/{name}")
    ]
    if not places or "/" in name or name in ("", _SHARED) or name[0] == ".":
        known = nearest(name, event_names(paths))
        raise UnknownEvent(f"{name}: there is no such event{known}")
    targets: set[str] = set()
    steps: dict[str, str] = {}
    services: dict[str, Sequence[str]] = {}
    for place in places:
        targets.update(_files_below(os.path.join(place, "templates2expand")))
        steps.update(_actions(place, paths))
        folder = os.path.join(place, "services2adjust")
        for service in sorted(os.listdir(folder) if os.path.isdir(folder) else ()):
            services[service] = read_actions(os.path.join(folder, service))
    if targets:
        steps[EXPAND] = ""
    if services:
        steps[ADJUST] = ""
    return Event(
        name,
        tuple(sorted(targets, key=os.fsencode)),
        {
            entry: steps[entry]
            for entry in sorted(steps, key=os.fsencode)
            if steps[entry] != os.devnull
        },
        services,
    )


def event_names(paths: Paths) -> list[str]:
    """Return the names of all events, sorted."""
    names = {
        name
        for root in _roots(paths)
        if os.path.isdir(root)
        for name in os.listdir(root)
        if os.path.isdir(os.path.join(root, name)) and name != _SHARED
    }
    return sorted(names)


def _roots(paths: Paths) -> tuple[str, str]:
    return shipped("events"), os.path.join(paths.site, "events")


def _actions(place: str, paths: Paths) -> Iterator[tuple[str, str]]:
    for entry in os.listdir(place):
        path = os.path.join(place, entry)
        if not entry.startswith("S") or os.path.isdir(path):
            continue
        if os.path.realpath(path) == os.devnull:
            yield entry, os.devnull
        elif not os.path.exists(path) or not os.path.getsize(path):
            yield entry, _shared_action(path, paths) or path
        else:
            yield entry, path


def _shared_action(path: str, paths: Paths) -> str | None:
    """Return the shared action that an empty file or a dangling link stands for."""
    named = os.readlink(path) if os.path.islink(path) else path
    name = os.path.basename(named)
    if not os.path.islink(path):
        name = name.lstrip("S").lstrip("0123456789")
    for root in reversed(_roots(paths)):
        shared = os.path.join(root, _SHARED, name)
        if name and os.path.isfile(shared):
            return shared
    return None


def _files_below(root: str) -> Iterator[str]:
    for directory, _, files in os.walk(root):
        for name in files:
            yield os.path.relpath(os.path.join(directory, name), root)
