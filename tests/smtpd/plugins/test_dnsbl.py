"""dnsbl: refuses clients that block lists name, and no others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.smtp import Conversation, load

CLIENT = "7.2.0.192"  # 192.0.2.7, reversed


@pytest.fixture
def server() -> Iterator[DnsServer]:
    zones = {f"{CLIENT}.list.test": {"A": ["127.0.0.2"], "TXT": ['"bad one"']}}
    with DnsServer(zones) as server:
        yield server


def client(
    tmp_path: Path,
    server: DnsServer,
    options: str = "",
    remote: str = "192.0.2.7",
    zones: str = "list.test",
    before: str = "",
    **files: str,
) -> Conversation:
    plugins = f"{before}\ndnsbl {options}\nnaughty\nrcpt_ok\nqueue/null"
    configuration = load(
        tmp_path,
        {
            "plugins": plugins,
            "dnsbl_zones": zones,
            "dns_servers": f"127.0.0.1@{server.port}",
            **files,
        },
    )
    return Conversation(configuration, remote)


def test_listed_client_is_refused_at_once_with_the_text_of_the_list(
    tmp_path: Path, server: DnsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path, server) as one:
        assert one.greeting == "550 5.7.1 bad one"
        assert one.session.closing
    assert "1.1 (connect) dnsbl: fail, bad one\n" in capfd.readouterr().err


def test_unlisted_client_is_greeted(
    tmp_path: Path, server: DnsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path, server, remote="192.0.2.8") as one:
        assert one.greeting.startswith("220")
        assert one.deliver().startswith("250")
    assert "1.1 (connect) dnsbl: pass\n" in capfd.readouterr().err


def test_message_of_the_site_names_the_address(
    tmp_path: Path, server: DnsServer
) -> None:
    zones = "list.test:Blocked - see <http://x/?ip=%IP%>"
    with client(tmp_path, server, zones=zones) as one:
        assert one.greeting == "550 5.7.1 Blocked - see <http://x/?ip=192.0.2.7>"


@pytest.mark.parametrize(
    ("options", "reply", "closes"),
    [
        ("reject 1", "550 5.7.1 bad one", True),
        ("reject 1 reject_type temp", "450 4.7.1 bad one", True),
        ("reject 1 reject_type disconnect", "550 5.7.1 bad one", True),
        ("reject 1 reject_type temp_disconnect", "450 4.7.1 bad one", True),
        ("reject 0", "220 mx.test ESMTP", False),
        ("reject naughty", "220 mx.test ESMTP", False),
    ],
)
def test_policy_says_what_becomes_of_a_listed_client(
    tmp_path: Path, server: DnsServer, options: str, reply: str, closes: bool
) -> None:
    with client(tmp_path, server, options) as one:
        assert (one.greeting, one.session.closing) == (reply, closes)


def test_tolerated_client_delivers_its_mail(
    tmp_path: Path, server: DnsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path, server, "reject 0") as one:
        assert one.deliver().startswith("250")
    assert "dnsbl: fail, tolerated, bad one" in capfd.readouterr().err


def test_naughty_client_is_refused_at_rcpt_but_for_role_accounts(
    tmp_path: Path, server: DnsServer
) -> None:
    with client(tmp_path, server, "reject naughty") as one:
        one.say("EHLO c", "MAIL FROM:<a@far.test>")
        assert one.say("RCPT TO:<you@here.test>") == "550 5.7.1 bad one"
        for role in ("postmaster@here.test", "Abuse@here.test", "postmaster"):
            assert one.say(f"RCPT TO:<{role}>").startswith("250")
        assert one.say("RCPT TO:<me@here.test>") == "550 5.7.1 bad one"
        assert one.send().startswith("250")


def test_refused_at_once_spares_nobody(tmp_path: Path, server: DnsServer) -> None:
    """At connect nobody knows yet whom the mail is for."""
    with client(tmp_path, server, "reject 1") as one:
        assert one.greeting.startswith("550")


def test_reject_type_of_the_list_is_kept_when_it_is_put_off(
    tmp_path: Path, server: DnsServer
) -> None:
    options = "reject naughty reject_type temp_disconnect"
    with client(tmp_path, server, options) as one:
        one.say("EHLO c", "MAIL FROM:<a@far.test>")
        assert one.say("RCPT TO:<you@here.test>") == "421 4.7.1 bad one"
        assert one.session.closing


@pytest.mark.parametrize("code", ["127.0.0.1", "127.255.255.254", "203.0.113.5"])
def test_error_code_of_a_list_refuses_nobody(
    tmp_path: Path, server: DnsServer, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server.zones["*.list.test"] = {"A": [code]}
    with client(tmp_path, server, remote="192.0.2.8") as one:
        assert one.greeting.startswith("220")

    log = capfd.readouterr().err
    assert f"dnsbl: error, list.test: {code} is an error, no listing" in log


@pytest.mark.parametrize("kind", ["silent", "servfail", "refused", "noise"])
def test_list_that_does_not_answer_lets_mail_through_in_time(
    tmp_path: Path, server: DnsServer, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fail("*.list.test", kind)
    started = time.monotonic()

    with client(tmp_path, server, "timeout 1") as one:
        assert one.greeting.startswith("220")

    assert time.monotonic() - started < 2.5
    assert "dnsbl: error, list.test: " in capfd.readouterr().err


def test_silent_list_does_not_hide_the_listing_of_another(
    tmp_path: Path, server: DnsServer
) -> None:
    server.fail("*.dead.test", "silent")
    zones = "dead.test\nlist.test\ndead.test"
    with client(tmp_path, server, "timeout 1", zones=zones) as one:
        assert one.greeting == "550 5.7.1 bad one"


def test_all_lists_are_asked_at_once(tmp_path: Path, server: DnsServer) -> None:
    zones = [f"slow{number}.test" for number in range(10)]
    for zone in zones:
        server.fail(f"*.{zone}", seconds=0.3)
    started = time.monotonic()

    with client(tmp_path, server, zones="\n".join(zones)) as one:
        assert one.greeting.startswith("220")

    assert time.monotonic() - started < 2
    asked = {name for name, kind, _ in server.asked if kind == "A"}
    assert asked == {f"{CLIENT}.{zone}" for zone in zones}


def test_ipv6_client_is_looked_up_by_its_nibbles(
    tmp_path: Path, server: DnsServer
) -> None:
    name = ".".join("20010db8" + "0" * 23 + "1")
    server.zones[f"{name[::-1]}.list.test"] = {"A": ["127.0.0.2"]}

    with client(tmp_path, server, remote="2001:db8::1") as one:
        assert one.greeting == "550 5.7.1 2001:db8::1 is listed by list.test"


@pytest.mark.parametrize("entry", ["192.0.2.7", "192.0.2.", "192.0.2.0/29"])
def test_allowed_client_is_not_looked_up(
    tmp_path: Path, server: DnsServer, entry: str
) -> None:
    with client(tmp_path, server, dnsbl_allow=entry) as one:
        assert one.greeting.startswith("220")
    assert server.asked == []


def test_relay_client_is_not_looked_up(tmp_path: Path, server: DnsServer) -> None:
    files = {"before": "relay", "relayclients": "192.0.2."}
    with client(tmp_path, server, **files) as one:
        assert one.greeting.startswith("220")
    assert server.asked == []


def test_nobody_is_looked_up_without_zones(tmp_path: Path, server: DnsServer) -> None:
    with client(tmp_path, server, zones="# none") as one:
        assert one.greeting.startswith("220")
    assert server.asked == []


def test_hostile_text_stays_one_short_printable_line(
    tmp_path: Path, server: DnsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    text = r'"x\013\010250 2.0.0 welcome\013\010\000\027[31m\255" "' + "\\010" * 200
    server.zones[f"{CLIENT}.list.test"]["TXT"] = [f'{text}" "{"y" * 255}"']

    with client(tmp_path, server) as one:
        assert "\n" not in one.greeting
        assert one.greeting.startswith("550 5.7.1 x 250 2.0.0 welcome ??[31m? yyy")
    log = capfd.readouterr().err
    assert "\x1b" not in log
    (line,) = [line for line in log.splitlines() if "dnsbl: fail" in line]
    assert line.startswith(r"1.1 (connect) dnsbl: fail, x 250 2.0.0 welcome \x00\x1b[")


def test_longest_text_is_cut_to_one_line_of_512_bytes(
    tmp_path: Path, server: DnsServer
) -> None:
    text = " ".join(f'"{"z" * 250}"' for _ in range(40))
    server.zones[f"{CLIENT}.list.test"]["TXT"] = [text]

    with client(tmp_path, server) as one:
        assert len(one.greeting) == 510
