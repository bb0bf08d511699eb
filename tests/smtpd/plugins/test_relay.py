"""relay: says which clients may send to any domain."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.smtp import Conversation, load

LISTS = {"relayclients": "127.\n192.168.1.0/24", "norelayclients": "192.168.1.66"}


def client(tmp_path: Path, remote: str, options: str = "") -> Conversation:
    files = {"plugins": f"relay {options}\nrcpt_ok\nqueue/null", **LISTS}
    return Conversation(load(tmp_path, files), remote)


def rcpt(one: Conversation, address: str) -> str:
    one.say("EHLO c", "MAIL FROM:<a@x.test>")
    return one.say(f"RCPT TO:<{address}>")[:9]


@pytest.mark.parametrize(
    ("remote", "reply"),
    [
        ("127.0.0.1", "250 2.1.5"),
        ("192.168.1.0", "250 2.1.5"),
        ("192.168.1.255", "250 2.1.5"),
        ("192.168.1.66", "550 5.7.1"),
        ("192.168.2.1", "550 5.7.1"),
        ("12.7.0.1", "550 5.7.1"),
        ("2001:db8::1", "550 5.7.1"),
    ],
)
def test_relay_clients_alone_may_send_to_any_domain(
    tmp_path: Path, remote: str, reply: str
) -> None:
    with client(tmp_path, remote) as one:
        assert rcpt(one, "you@far.test") == reply


def test_others_may_send_to_us(tmp_path: Path) -> None:
    with client(tmp_path, "192.0.2.1") as one:
        assert rcpt(one, "you@here.test") == "250 2.1.5"


def test_with_only_others_may_send_to_nobody(tmp_path: Path) -> None:
    with client(tmp_path, "192.0.2.1", "only 1") as one:
        assert rcpt(one, "you@here.test") == "550 5.7.1"
    with client(tmp_path, "127.0.0.1", "only 1") as one:
        assert rcpt(one, "you@far.test") == "250 2.1.5"


def test_it_says_what_it_found(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path, "127.0.0.1"), client(tmp_path, "192.0.2.1"):
        pass

    log = capfd.readouterr().err
    assert "(connect) relay: pass, relay client\n" in log
    assert "(connect) relay: skip, no relay client\n" in log
