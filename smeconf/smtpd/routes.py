"""Routes: which server the mail of a domain goes to, in the form of qmail's smtproutes.

    here.test:192.0.2.5         the mail of a domain
    .here.test:inner.test:26    of all domains below it
    plain.test:                 no route of its own, whatever stands for all
    :smart.test:587             of every other domain that is not ours

The most exact line counts.  A line without a domain never catches our own domains
(rcpthosts): as with qmail, mail for those is local unless a route names them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smeconf.smtpd.client import Target, parse_target


@dataclass(frozen=True, slots=True)
class Route:
    """One line; ``target`` is None where it says that there is no route."""

    domain: str
    target: Target | None


def parse_route(text: str) -> Route:
    """Read DOMAIN:HOST or DOMAIN:HOST:PORT.  Raises ValueError."""
    domain, colon, server = text.partition(":")
    domain = domain.strip().lower()
    if not colon or not domain.isprintable() or " " in domain:
        raise ValueError(f"{text!r} is no DOMAIN:HOST:PORT")
    server = server.strip()
    return Route(domain, parse_target(server, 25) if server else None)


class Routes:
    """All lines together; ``own`` are our domains, ``.domain`` for those below one."""

    def __init__(self, routes: Iterable[Route], own: Iterable[str] = ()) -> None:
        self._targets: dict[str, Target | None] = {}
        for route in routes:
            self._targets.setdefault(route.domain, route.target)
        self._own = frozenset(domain.lower() for domain in own)

    def __bool__(self) -> bool:
        return bool(self._targets)

    def find(self, domain: str) -> Target | None:
        """Return where the mail of a domain goes; None: nowhere in particular."""
        for name in _names_over(domain):
            if name in self._targets:
                return self._targets[name]
        if any(name in self._own for name in _names_over(domain)):
            return None
        return self._targets.get("")


def _names_over(domain: str) -> list[str]:
    """Return the names that a domain is found by: a.b.c, .b.c, .c."""
    parts = domain.lower().split(".")
    above = ["." + ".".join(parts[n:]) for n in range(1, len(parts))]
    return [domain.lower(), *above]
