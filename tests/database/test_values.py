"""The kinds of values of a mail filter, and what is said of those that do not fit."""

from __future__ import annotations

import pytest

from smeconf.database.schema import Property
from smeconf.database.values import CHECKS, LIST_KINDS, describe_accepted

# Kind: what it accepts, what it refuses; with a minimum of 3 and a maximum of 5.
VALUES: dict[str, tuple[list[str], list[str]]] = {
    "switch": (["enabled", "disabled"], ["", "Enabled", "yes", "enabled ", "1"]),
    "flag": (["0", "1"], ["", "2", "on", "01"]),
    "text": (
        ["", "a b", "a\tb", "\u00e9", "Don't |"],
        ["a\nb", "\x1b[0m", "a\rb", "a\x7f", "\x85"],
    ),
    "word": (["a", "var/lib/x", "\u00e9"], ["a b", "a\tb", "a\n", "\x7f"]),
    "integer": (["3", "003", "5"], ["", "2", "6", "-3", "+3", "3.0", " 3", "\u0664"]),
    "domain": (
        ["a", "a.test", "A.Test", "xn--a.test", "_dmarc.a.test", "1.2", "a" * 63],
        ["", ".", "a.", ".a", "a..b", "-a", "a-", "a b", "a" * 64, "\u00e9.test"],
    ),
    "account": (["a", "a.b-c_1"], ["", "A", "1a", ".a", "a b", "\u00e9"]),
    "address": (["192.0.2.1", "::1"], ["", "1.2.3", "1.2.3.256", "a.test", "::1/64"]),
    "addresses": (["", "192.0.2.1", "::1, 192.0.2.1"], ["a", "192.0.2.1;::1"]),
    "netmask": (
        ["255.255.255.0", "255.255.254.0"],
        ["", "255.0.255.0", "a", "24", "0.0.0.255"],
    ),
    "dns servers": (
        ["", "192.0.2.1", "192.0.2.1@5353, ::1@1"],
        ["192.0.2.1@", "192.0.2.1@0", "192.0.2.1@65536", "a.test", "192.0.2.1:53"],
    ),
    "zones": (
        ["", "a.test", "a.test:Don't send,b.test", '"a.test:No, thanks"', "a.test :x"],
        ["a", "a.test b.test", "a.test,-", "http://a.test", "'a.test", '"a.test"x'],
    ),
    "number": (["3", "4.00", "5"], ["", "2.9", "5.1", "-3", "3.", ".5", "3,5", "1e1"]),
    "size": (["0", "15000000", "25M", "1G", "8K"], ["", "M", "25 M", "25m", "1.5M"]),
    "accounts": (["", "www,admin,ann", "ann, bob.lee"], ["Ann", "ann bob", "ann,1a"]),
    "host": (["a.test", "192.0.2.1", "::1"], ["", "a b", "a.test:25", "[::1]"]),
    "mac": (
        ["00:11:22:33:44:55", "AA:bb:CC:dd:ee:ff"],
        ["", "00:11:22:33:44", "00-11-22-33-44-55", "00:11:22:33:44:5g"],
    ),
    "openssl": (
        ["HIGH:!SSLv2", "ALL:+HIGH:@STRENGTH"],
        ["", "HIGH; LOW", "a b", "'a'"],
    ),
    "uribl zones": (
        ["", "multi.surbl.org:8-16-64-128,black.uribl.com", "a.test:4294967295"],
        ["a", "a.test:", "a.test:8,16", "a.test:8-", "a.test:0", "a.test:text"],
    ),
}


def rule(kind: str, **words: object) -> Property:
    return Property({"kind": kind, "minimum": 3, "maximum": 5, **words})


@pytest.mark.parametrize("kind", CHECKS)
def test_kind_accepts_what_it_should(kind: str) -> None:
    for value in VALUES[kind][0]:
        assert rule(kind).find_fault(value) is None, value


@pytest.mark.parametrize("kind", CHECKS)
def test_kind_refuses_in_one_line_that_says_what_is_accepted(kind: str) -> None:
    for value in VALUES[kind][1]:
        fault = rule(kind).find_fault(value)

        assert fault, value
        assert "must be " in fault
        assert "\n" not in fault
        assert "\0" not in fault


@pytest.mark.parametrize("kind", CHECKS)
def test_every_kind_has_words_for_what_it_accepts(kind: str) -> None:
    assert describe_accepted(rule(kind))


@pytest.mark.parametrize("kind", sorted(LIST_KINDS))
def test_list_kinds_are_kinds_and_take_the_empty_list(kind: str) -> None:
    assert rule(kind).find_fault("") is None
    assert rule(kind).is_list
    assert not rule(kind, values=["a"]).is_list


def test_masks_at_fault_are_named_with_their_entry() -> None:
    fault = rule("uribl zones").find_fault("a.test:8, b.test:x")

    assert fault
    assert fault.startswith("entry 'b.test:x'; must be a comma list of zones")
