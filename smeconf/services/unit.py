"""The unit files that are shipped, filled in for one installation and one root."""

from __future__ import annotations

import os
import re
import sys

from smeconf.database.schema import nearest
from smeconf.paths import Paths
from smeconf.services.service import ServiceError

_SHIPPED = os.path.join(os.path.dirname(os.path.dirname(__file__)), "systemd")
_SUFFIX = ".service.in"

# What means nothing to systemd within quotes: no %, $, ", \ and no control character.
_PLAIN = re.compile(r"[\w /.,:;@+=~()-]*")


def unit_names() -> list[str]:
    """Return the services for which a unit is shipped."""
    return sorted(
        name.removesuffix(_SUFFIX)
        for name in os.listdir(_SHIPPED)
        if name.endswith(_SUFFIX)
    )


def unit_text(name: str, paths: Paths) -> str:
    """Return the unit file of a service, for this installation and a root.

    Raises ServiceError where there is none, or where a path cannot stand in one.
    """
    names = unit_names()
    if name not in names:
        raise ServiceError(
            f"{name}: no unit is shipped for it{nearest(name, names)}; "
            f"there is {', '.join(names)}"
        )
    with open(os.path.join(_SHIPPED, name + _SUFFIX), encoding="utf-8") as file:
        text = file.read()
    places = {"@BIN@": os.path.dirname(sys.executable), "@ROOT@": paths.root}
    for mark, place in places.items():
        if not _PLAIN.fullmatch(place):
            raise ServiceError(
                f"{place}: a unit cannot name this path: use one without special signs"
            )
        text = text.replace(mark, place)
    return text
