"""queue/lmtp: every recipient gets the message once, and the client hears the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.next_server import CLOSE, NextServer
from tests.support.smtp import MAIL, Conversation, free_port, load


def lmtp(tmp_path: Path, place: str, options: str = "") -> Conversation:
    plugins = f"rcpt_ok\nqueue/lmtp {place} {options}"
    return Conversation(load(tmp_path, {"plugins": plugins}))


TWO = ("b@here.test", "c@here.test")


def test_message_that_all_have_is_accepted(tmp_path: Path) -> None:
    with (
        NextServer(end_replies=["250 b has it", "250 c has it"]) as server,
        lmtp(tmp_path, f"127.0.0.1:{server.port}") as one,
    ):
        assert one.deliver(*TWO) == "250 2.0.0 Queued! b has it"

    assert server.lines[0] == "LHLO mx.test"
    assert server.message.endswith(MAIL.encode())


def test_socket_of_the_machine_serves_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # tmp_path may be longer than an address holds
    place = Path("/proc/self/cwd/lmtp")
    with NextServer(path=place) as server, lmtp(tmp_path, f"unix:{place}") as one:
        assert one.deliver().startswith("250 ")

    assert len(server.messages) == 1


@pytest.mark.parametrize("code", ["452", "552"])
def test_second_try_spares_those_who_have_the_message(
    tmp_path: Path, code: str
) -> None:
    ends = ["250 ok", f"{code} mailbox full"]
    with (
        NextServer(end_replies=ends) as server,
        lmtp(tmp_path, f"127.0.0.1:{server.port}") as one,
    ):
        reply = one.deliver(*TWO)
        server.end_replies = ["250 ok"]
        assert one.deliver(*TWO).startswith("250 ")

    text = "Not every mailbox took it, try again later: c@here.test"
    assert reply == f"452 4.7.1 {text}"
    second = server.lines[server.lines.index("DATA") + 1 :]
    assert [line for line in second if line.startswith("RCPT")] == [
        "RCPT TO:<c@here.test>"
    ]


def test_message_that_nobody_takes_for_good_is_refused_for_good(tmp_path: Path) -> None:
    with (
        NextServer(end_replies=["550 no", "550 no"]) as server,
        lmtp(tmp_path, f"127.0.0.1:{server.port}") as one,
    ):
        assert one.deliver(*TWO) == "552 5.7.1 no"


@pytest.mark.parametrize("step", ["greeting", "LHLO", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("reply", ["451 later", CLOSE])
def test_server_that_is_not_ready_is_put_off(
    tmp_path: Path, step: str, reply: str
) -> None:
    with (
        NextServer(**{step: reply}) as server,
        lmtp(tmp_path, f"127.0.0.1:{server.port}") as one,
    ):
        assert one.deliver(*TWO)[:3] == "452"

    assert server.messages == []


def test_server_that_is_down_is_put_off(tmp_path: Path) -> None:
    with lmtp(tmp_path, f"127.0.0.1:{free_port()}") as one:
        assert one.deliver()[:3] == "452"


@pytest.mark.parametrize("words", ["", "unix:lmtp", "a:0", "a tls often"])
def test_place_that_is_none_is_an_error(tmp_path: Path, words: str) -> None:
    with pytest.raises(Exception, match=r"plugins:1: "):
        load(tmp_path, {"plugins": f"queue/lmtp {words}"})
