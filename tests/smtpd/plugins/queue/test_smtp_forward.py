"""queue/smtp-forward: the client hears 250 only when the next server took the mail."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from smeconf.smtpd.client import Target
from tests.support.next_server import CLOSE, SILENT, NextServer
from tests.support.smtp import MAIL, Conversation, free_port, load, mails


def forward(
    tmp_path: Path,
    port: int,
    *recipients: str,
    message: str | bytes = MAIL,
    options: str = "",
) -> str:
    plugins = f"rcpt_ok\nqueue/smtp-forward 127.0.0.1:{port} {options}"
    with Conversation(load(tmp_path, {"plugins": plugins})) as one:
        return one.deliver(*recipients, message=message)


def test_message_is_handed_on_with_its_envelope(tmp_path: Path) -> None:
    with NextServer() as server:
        reply = forward(tmp_path, server.port, "b@here.test", "c@here.test")

    assert reply == "250 2.0.0 Queued! ok, queued as 7"
    assert server.lines == [
        "EHLO mx.test",
        "MAIL FROM:<a@far.test>",
        "RCPT TO:<b@here.test>",
        "RCPT TO:<c@here.test>",
        "DATA",
        "QUIT",
    ]
    assert server.message.startswith(b"Received: from client.test")
    assert server.message.endswith(MAIL.encode())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\r\n",
        b"..\r\n",
        b"..a\r\n...b\r\nx.\r\n",
        b"a\r\n..\r\n..\r\n\r\n",
        b"\xff\x00\x80 eight bits\r\n",
        b"..\r\n" * 400_000,
    ],
    ids=["empty", "blank", "dot", "dots", "dots alone", "binary", "spooled"],
)
def test_text_arrives_byte_by_byte_as_it_was_sent(tmp_path: Path, text: bytes) -> None:
    """The client stuffed its dots, and so does the filter."""
    with NextServer() as server:
        reply = forward(tmp_path, server.port, message=b"A: b\r\n\r\n" + text)

    assert reply.startswith("250")
    assert server.message.endswith(b"\r\nA: b\r\n\r\n" + text)


def test_odd_addresses_are_written_as_addresses(tmp_path: Path) -> None:
    with NextServer() as server:
        forward(tmp_path, server.port, '"a b"@here.test', "postmaster")

    assert server.lines[2:4] == ['RCPT TO:<"a b"@here.test>', "RCPT TO:<postmaster>"]


LATER = "452 4.7.1 The next server is not ready, try again later"
NO_ANSWER = "452 4.7.1 The next server does not answer, try again later"
STEPS = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "end"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", ["421", "450"])
def test_refused_for_now_is_put_off(tmp_path: Path, step: str, code: str) -> None:
    with NextServer(**{step: f"{code} 4.0.0 later"}) as server:
        assert forward(tmp_path, server.port) == LATER


@pytest.mark.parametrize("step", STEPS[2:])
def test_refused_for_good_is_refused_for_good(
    tmp_path: Path, step: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with NextServer(**{step: "550-5.1.1 no\r\n550 5.1.1 such user"}) as server:
        reply = forward(tmp_path, server.port)

    assert reply == "552 5.7.1 no / such user"
    log = capfd.readouterr().err
    verb = "end of data" if step == "end" else step
    assert f"127.0.0.1:{server.port} answered {verb}: 550 5.1.1 no / " in log


@pytest.mark.parametrize("step", STEPS[:2])
def test_server_that_wants_nothing_of_us_costs_no_mail(
    tmp_path: Path, step: str
) -> None:
    """It says nothing of this message, whose sender must not be told "never"."""
    with NextServer(**{step: "554 no service here"}) as server:
        assert forward(tmp_path, server.port) == LATER


def test_one_recipient_refused_for_good_puts_the_whole_off(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client was told that both were accepted: neither yes nor never is true."""
    refused = {"RCPT TO:<c@here.test>": "550 no c"}
    with NextServer(**refused) as server:
        reply = forward(tmp_path, server.port, "b@here.test", "c@here.test")

    text = "Not every recipient is accepted by the next server: c@here.test"
    assert reply == f"452 4.7.1 {text}"
    assert server.messages == []
    assert "DATA" not in server.lines
    assert "refused for good, others not: c@here.test" in capfd.readouterr().err


def test_all_recipients_refused_for_good_refuse_the_message(tmp_path: Path) -> None:
    with NextServer(RCPT="550 no") as server:
        reply = forward(tmp_path, server.port, "b@here.test", "c@here.test")

    assert reply == "552 5.7.1 no"


@pytest.mark.parametrize("step", STEPS)
def test_server_that_hangs_up_is_put_off(tmp_path: Path, step: str) -> None:
    with NextServer(**{step: CLOSE}) as server:
        assert forward(tmp_path, server.port) == NO_ANSWER


@pytest.mark.parametrize("step", ["greeting", "RCPT", "end"])
def test_server_that_falls_silent_is_put_off_in_time(tmp_path: Path, step: str) -> None:
    started = time.monotonic()

    with NextServer(**{step: SILENT}) as server:
        assert forward(tmp_path, server.port, options="timeout 1") == NO_ANSWER

    assert time.monotonic() - started < 5


@pytest.mark.parametrize("reply", ["what?", "2x0 odd", "x" * 20_000])
def test_server_that_does_not_speak_smtp_is_put_off(tmp_path: Path, reply: str) -> None:
    with NextServer(greeting=reply) as server:
        assert forward(tmp_path, server.port) == NO_ANSWER

    assert server.connections == 1


def test_server_that_is_down_is_put_off(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()

    assert forward(tmp_path, port) == NO_ANSWER
    assert f"smtp-forward: error, 127.0.0.1:{port}: " in capfd.readouterr().err


def test_text_of_the_next_server_is_made_harmless(tmp_path: Path) -> None:
    with NextServer(end="250 ok\x1b[31m\xff\x85") as server:
        assert forward(tmp_path, server.port).startswith("250 2.0.0 Queued! ok?[31m")


@pytest.mark.parametrize(
    ("words", "places"),
    [
        ("next.test", [("next.test", 25)]),
        ("next.test 26", [("next.test", 26)]),
        ("next.test:26", [("next.test", 26)]),
        ("[::1]:26", [("::1", 26)]),
        ("[::1]", [("::1", 25)]),
        ("::1", [("::1", 25)]),
        ("::1 26", [("::1", 26)]),
        ("a.test:26 b.test", [("a.test", 26), ("b.test", 25)]),
        ("a.test:26,b.test timeout 9", [("a.test", 26), ("b.test", 25)]),
    ],
)
def test_places_are_read(
    tmp_path: Path, words: str, places: list[tuple[str, int]]
) -> None:
    (plugin,) = load(tmp_path, {"plugins": f"queue/smtp-forward {words}"}).plugins()

    assert plugin.targets == tuple(Target(*one) for one in places)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words",
    ["", "next.test:smtp", "next.test:0", "next.test a:0x", "unix:/a", "a tls often"],
)
def test_place_that_is_none_is_an_error(tmp_path: Path, words: str) -> None:
    with pytest.raises(Exception, match=r"plugins:1: "):
        load(tmp_path, {"plugins": f"queue/smtp-forward {words}"})


def test_second_server_serves_while_the_first_is_down(tmp_path: Path) -> None:
    with NextServer() as server:
        plugins = f"127.0.0.1:{free_port()} 127.0.0.1:{server.port}"
        configuration = load(
            tmp_path, {"plugins": f"rcpt_ok\nqueue/smtp-forward {plugins}"}
        )
        with Conversation(configuration) as one:
            assert one.deliver().startswith("250 ")

    assert len(server.messages) == 1


def test_login_is_read_from_its_file(tmp_path: Path) -> None:
    script = {"EHLO": "250-next\r\n250 AUTH PLAIN", "AUTH": "235 in"}
    with NextServer(**script) as server:
        place = f"127.0.0.1:{server.port}"
        (tmp_path / "root").mkdir()
        (tmp_path / "root/logins").write_text(f"# who\n{place}\tme\tse cret\n")
        options = "tls no login logins login_in_clear 1"
        assert forward(tmp_path, server.port, options=options).startswith("250")

    assert "AUTH PLAIN AG1lAHNlIGNyZXQ=" in server.lines


def test_file_of_logins_is_left_to_the_filters_user(tmp_path: Path) -> None:
    """Who cannot read the file itself, as it is root's."""
    plugins = {"plugins": "queue/smtp-forward a.test login logins"}
    (plugin,) = load(tmp_path, plugins).plugins()
    login = tmp_path / "root/logins"
    login.write_text("a.test\tme\tsecret\n")

    plugin.prepare(os.geteuid() + 1, os.getegid()) if os.geteuid() == 0 else None
    login.unlink()

    (plugin,) = load(tmp_path, plugins).plugins()
    known = plugin._pool.terms.logins  # type: ignore[attr-defined]
    copy = tmp_path / "root/var/spool/qpsmtpd/.logins"
    if os.geteuid() == 0:
        assert known == {Target("a.test", 25): ("me", "secret")}
        assert copy.stat().st_mode & 0o7777 == 0o600
        assert copy.stat().st_uid == os.geteuid() + 1


def test_fault_in_the_file_of_logins_shows_no_password(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/logins").write_text("a.test me secret\n")

    with pytest.raises(Exception, match=r"logins:1: is HOST:PORT") as caught:
        load(tmp_path, {"plugins": "queue/smtp-forward a.test login logins"})

    assert "secret" not in str(caught.value)


# Routes


def routed(
    tmp_path: Path, routes: str, plugins: str = "queue/smtp-forward routes 1"
) -> Conversation:
    files = {
        "plugins": f"relay\nrcpt_ok\n{plugins}\nqueue/maildir var/mail",
        "rcpthosts": "here.test\nthere.test",
        "smtproutes": routes,
        "relayclients": "192.0.2.1",
    }
    return Conversation(load(tmp_path, files))


def kept(tmp_path: Path) -> list[bytes]:
    return mails(tmp_path / "root/var/mail")


def test_domain_with_a_route_goes_there_and_the_rest_stays(tmp_path: Path) -> None:
    with NextServer() as server:
        route = f"there.test:127.0.0.1:{server.port}"
        with routed(tmp_path, route) as one:
            assert one.deliver("b@there.test").startswith("250 ")
            assert kept(tmp_path) == []
            assert one.deliver("b@here.test").startswith("250 ")

    assert len(server.messages) == 1
    assert len(kept(tmp_path)) == 1


def test_route_for_all_takes_what_relay_clients_send_out(tmp_path: Path) -> None:
    with NextServer() as smart, routed(tmp_path, f":127.0.0.1:{smart.port}") as one:
        assert one.deliver("x@far.test").startswith("250 ")
        assert one.deliver("x@here.test").startswith("250 ")

    assert "RCPT TO:<x@far.test>" in smart.lines
    assert len(smart.messages) == 1
    assert len(kept(tmp_path)) == 1


def test_message_for_both_is_delivered_to_each_once(tmp_path: Path) -> None:
    with (
        NextServer() as server,
        routed(tmp_path, f"there.test:127.0.0.1:{server.port}") as one,
    ):
        reply = one.deliver("b@there.test", "b@here.test")

    assert reply.startswith("250 ")
    assert server.lines[2:4] == ["RCPT TO:<b@there.test>", "DATA"]
    (stored,) = kept(tmp_path)
    assert b"Delivered-To: b@here.test\n" in stored
    assert b"there.test" not in stored.partition(b"Received")[0]


def test_no_server_gets_a_message_that_another_refuses(tmp_path: Path) -> None:
    with NextServer() as first, NextServer(RCPT="450 later") as second:
        routes = f"there.test:127.0.0.1:{first.port}\n:127.0.0.1:{second.port}"
        with routed(tmp_path, routes) as one:
            assert one.deliver("b@there.test", "x@far.test") == LATER

    assert first.messages == second.messages == []


def test_second_try_spares_the_server_that_has_the_message(tmp_path: Path) -> None:
    with (
        NextServer() as first,
        NextServer(turns=[{"end": "451 later"}, {}]) as second,
    ):
        routes = f"there.test:127.0.0.1:{first.port}\n:127.0.0.1:{second.port}"
        with routed(tmp_path, routes) as one:
            assert one.deliver("b@there.test", "x@far.test") == LATER
            assert one.deliver("b@there.test", "x@far.test").startswith("250 ")

    assert len(first.messages) == 1
    assert len(second.messages) == 2


def test_refusal_for_good_behind_a_delivery_is_put_off(tmp_path: Path) -> None:
    """One recipient has the message: the sender must not be told that none has."""
    with NextServer() as first, NextServer(end="554 spam") as second:
        routes = f"there.test:127.0.0.1:{first.port}\n:127.0.0.1:{second.port}"
        with routed(tmp_path, routes) as one:
            assert one.deliver("b@there.test", "x@far.test")[:3] == "452"


def test_pooled_connection_carries_the_next_message(tmp_path: Path) -> None:
    with NextServer() as server:
        plugins = f"queue/smtp-forward 127.0.0.1:{server.port} connections 1"
        configuration = load(tmp_path, {"plugins": f"rcpt_ok\n{plugins}"})
        with Conversation(configuration) as one:
            assert one.deliver().startswith("250 ")
            assert one.deliver().startswith("250 ")
            configuration.plugins()[1]._pool.close()  # type: ignore[attr-defined]
            one.say("NOOP")

    assert server.connections == 1
    assert len(server.messages) == 2
