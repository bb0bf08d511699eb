"""smtproutes: which server the mail of a domain goes to."""

from __future__ import annotations

import pytest

from smeconf.smtpd.client import Target
from smeconf.smtpd.routes import Routes, parse_route

LINES = (
    *("here.test:192.0.2.5", ".here.test:inner.test:26", "deep.here.test:[::1]:27"),
    *("plain.test:", ":smart.test:587"),
)
ROUTES = Routes(map(parse_route, LINES), own=["own.test", ".below.test"])


@pytest.mark.parametrize(
    ("domain", "target"),
    [
        ("here.test", Target("192.0.2.5", 25)),
        ("HERE.test", Target("192.0.2.5", 25)),
        ("a.here.test", Target("inner.test", 26)),
        ("a.b.here.test", Target("inner.test", 26)),
        ("deep.here.test", Target("::1", 27)),
        ("plain.test", None),
        ("far.test", Target("smart.test", 587)),
        ("own.test", None),
        ("a.own.test", Target("smart.test", 587)),
        ("a.below.test", None),
        ("", Target("smart.test", 587)),
    ],
)
def test_most_exact_line_counts(domain: str, target: Target | None) -> None:
    assert ROUTES.find(domain) == target


def test_first_of_equal_lines_counts() -> None:
    routes = Routes([parse_route("a.test:one.test"), parse_route("a.test:two.test")])

    assert routes.find("a.test") == Target("one.test", 25)


@pytest.mark.parametrize("line", ["a.test", "a test:b", "a.test:b:0", "a.test:b:smtp"])
def test_line_that_is_no_route_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"is no DOMAIN:HOST:PORT|no port"):
        parse_route(line)
