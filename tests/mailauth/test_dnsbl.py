"""Block lists: what is asked, what counts as a listing, what is said of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from smeconf.dns import Resolver
from smeconf.mailauth.dnsbl import (
    BlockList,
    Findings,
    Health,
    examine,
    is_listing,
    look_up,
)
from tests.support.dns_server import DnsServer

CLIENT = "7.2.0.192"  # 192.0.2.7, reversed


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def ask(
    server: DnsServer, *lists: str, seconds: float = 4.0, address: str = "192.0.2.7"
) -> Findings:
    async def work() -> Findings:
        resolver = Resolver([("127.0.0.1", server.port)])
        try:
            zones = [BlockList.parse(text) for text in lists]
            return await look_up(resolver, ip_address(address), zones, seconds)
        finally:
            resolver.close()

    return asyncio.run(work())


def texts(findings: Findings) -> list[tuple[str, str]]:
    return [(one.name, text) for one, text in findings.listed]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("list.test", "list.test", None),
        (
            "list.test:No, see <http://x/?a=b:c>",
            "list.test",
            "No, see <http://x/?a=b:c>",
        ),
        (" list.test : no ", "list.test", "no"),
        ("list.test:", "list.test", ""),
    ],
)
def test_line_is_a_zone_and_perhaps_a_message(
    text: str, name: str, message: str | None
) -> None:
    one = BlockList.parse(text)

    assert (one.name, one.zone.name, one.message) == (name, name, message)


@pytest.mark.parametrize("text", ["", "list", ":message", "a b.test", "list..test"])
def test_line_without_a_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a zone"):
        BlockList.parse(text)


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ("127.0.0.2", True),
        ("127.0.0.10", True),
        ("127.0.1.2", True),
        ("127.1.0.1", True),
        ("127.255.254.1", True),
        ("127.0.0.1", False),
        ("127.255.255.252", False),
        ("127.255.255.254", False),
        ("203.0.113.5", False),
        ("12.7.0.2", False),
    ],
)
def test_only_answers_inside_127_that_are_no_error_codes_are_listings(
    address: str, listed: bool
) -> None:
    assert is_listing(address) is listed


def test_text_of_the_list_is_given(server: DnsServer) -> None:
    server.zones[f"{CLIENT}.list.test"] = {"A": ["127.0.0.2"], "TXT": ['"bad one"']}

    assert texts(ask(server, "list.test")) == [("list.test", "bad one")]


def test_list_without_a_text_is_named(server: DnsServer) -> None:
    server.zones[f"{CLIENT}.list.test"] = {"A": ["127.0.0.2"]}

    expected = [("list.test", "192.0.2.7 is listed by list.test")]
    assert texts(ask(server, "list.test")) == expected
    assert texts(ask(server, "list.test:")) == expected


def test_message_of_the_site_stands_for_the_text_and_names_the_address(
    server: DnsServer,
) -> None:
    server.zones[f"{CLIENT}.list.test"] = {"A": ["127.0.0.2"], "TXT": ['"bad one"']}

    found = ask(server, "list.test:%IP% is bad, see <http://x/%IP%>")

    message = "192.0.2.7 is bad, see <http://x/192.0.2.7>"
    assert texts(found) == [("list.test", message)]
    assert server.times_asked(f"{CLIENT}.list.test", "TXT") == 0


def test_text_without_an_address_record_is_no_listing(server: DnsServer) -> None:
    server.zones[f"{CLIENT}.list.test"] = {"TXT": ['"bad one"']}

    assert ask(server, "list.test") == Findings((), ())


def test_text_is_one_line_however_it_is_written(server: DnsServer) -> None:
    text = r'"one\013\010250 ok\009two  " "\010three"'
    server.zones[f"{CLIENT}.list.test"] = {"A": ["127.0.0.2"], "TXT": [text]}

    assert texts(ask(server, "list.test")) == [("list.test", "one 250 ok two three")]


@pytest.mark.parametrize("code", ["127.0.0.1", "127.255.255.254", "203.0.113.5"])
def test_error_of_the_operator_is_a_trouble(server: DnsServer, code: str) -> None:
    server.zones[f"{CLIENT}.list.test"] = {"A": [code], "TXT": ['"not you"']}

    trouble = f"list.test: {code} is an error, no listing"
    assert ask(server, "list.test") == Findings((), (trouble,))


def test_one_listing_among_error_codes_counts(server: DnsServer) -> None:
    server.zones[f"{CLIENT}.list.test"] = {"A": ["127.0.0.1", "127.0.0.4"]}

    assert len(ask(server, "list.test").listed) == 1


def test_listings_come_in_the_order_of_the_lists(server: DnsServer) -> None:
    for zone in ("a.test", "b.test", "c.test"):
        server.zones[f"{CLIENT}.{zone}"] = {"A": ["127.0.0.2"]}
    server.fail(f"{CLIENT}.b.test", seconds=0.1)

    found = ask(server, "b.test", "x.test", "a.test", "c.test")

    assert [name for name, _ in texts(found)] == ["b.test", "a.test", "c.test"]


def test_list_that_fails_does_not_hide_the_listing_of_another(
    server: DnsServer,
) -> None:
    server.zones[f"{CLIENT}.good.test"] = {"A": ["127.0.0.2"]}
    server.fail("*.dead.test", "silent")
    server.fail("*.broken.test", "servfail")

    found = ask(server, "dead.test", "broken.test", "good.test", seconds=0.4)

    assert [name for name, _ in texts(found)] == ["good.test"]
    assert found.troubles == (
        "dead.test: no answer in 0.4 s",
        f"broken.test: SERVFAIL from 127.0.0.1@{server.port}",
    )


def test_all_lists_share_one_budget(server: DnsServer) -> None:
    server.fail("*", "silent")
    started = time.monotonic()

    found = ask(server, *(f"dead{n}.test" for n in range(20)), seconds=0.4)

    assert 0.4 <= time.monotonic() - started < 2
    assert len(found.troubles) == 20


def test_listing_whose_text_is_silent_is_a_listing_all_the_same(
    server: DnsServer,
) -> None:
    name = f"{CLIENT}.list.test"

    def script(request: bytes, transport: str) -> list[bytes]:
        if b"\0\x10\0\1" in request[12:]:  # TXT
            return []
        server.script = None
        answer = [message for _, message in server.answer(request, transport)]
        server.script = script
        return answer

    server.zones[name] = {"A": ["127.0.0.2"], "TXT": ['"bad"']}
    server.script = script

    found = ask(server, "list.test", seconds=0.4)

    assert texts(found) == [("list.test", "192.0.2.7 is listed by list.test")]


def test_ipv6_client_is_asked_for_by_its_nibbles(server: DnsServer) -> None:
    # The example of RFC 5782, 2.4
    name = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.test"
    server.zones[name] = {"A": ["127.0.0.2"]}

    found = ask(server, "ugly.test", address="2001:db8:1:2:3:4:567:89ab")

    assert len(found.listed) == 1


def test_no_lists_are_no_questions(server: DnsServer) -> None:
    assert ask(server) == Findings((), ())
    assert server.asked == []


@pytest.mark.parametrize(
    ("points", "health"),
    [
        ({"2": "127.0.0.2"}, Health(True, "")),
        ({"2": "127.0.0.2", "1": "127.0.0.1"}, Health(True, "")),
        ({}, Health(True, "does not list its test point 127.0.0.2")),
        (
            {"2": "127.0.0.2", "1": "127.0.0.2"},
            Health(False, "lists 127.0.0.1, so it would refuse everybody"),
        ),
        (
            {"2": "203.0.113.5", "1": "203.0.113.5"},
            Health(False, "lists 127.0.0.1, so it would refuse everybody"),
        ),
        (
            {"2": "127.255.255.254", "1": "127.255.255.254"},
            Health(False, "answers with errors only (127.255.255.254)"),
        ),
    ],
)
def test_list_is_judged_by_its_test_points(
    server: DnsServer, points: dict[str, str], health: Health
) -> None:
    for last, answer in points.items():
        server.zones[f"{last}.0.0.127.list.test"] = {"A": [answer]}

    assert examined(server) == health


def test_list_that_cannot_be_tested_is_still_asked(server: DnsServer) -> None:
    server.fail("*", "servfail")

    health = examined(server)

    assert health.is_usable
    assert health.trouble.startswith("cannot be tested: SERVFAIL")


def examined(server: DnsServer) -> Health:
    async def work() -> Health:
        resolver = Resolver([("127.0.0.1", server.port)])
        try:
            one = BlockList.parse("list.test")
            return (await examine(resolver, [one], 4.0))[one]
        finally:
            resolver.close()

    return asyncio.run(work())
