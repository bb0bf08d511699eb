"""rcpt_ok: takes mail for our domains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.smtp import Conversation, load

HOSTS = "Here.Test\n.below.test"


def rcpt(tmp_path: Path, address: str, remote: str = "192.0.2.1") -> str:
    files = {
        "plugins": "relay\nrcpt_ok",
        "rcpthosts": HOSTS,
        "relayclients": "127.0.0.1",
    }
    with Conversation(load(tmp_path, files), remote) as one:
        one.say("EHLO c", "MAIL FROM:<a@x.test>")
        return one.say(f"RCPT TO:<{address}>")


@pytest.mark.parametrize(
    "address",
    [
        "you@here.test",
        "you@HERE.TEST",
        "you@a.below.test",
        "you@a.b.below.test",
        "you@mx.test",
        "postmaster",
        '"odd one"@here.test',
    ],
)
def test_our_domains_are_accepted(tmp_path: Path, address: str) -> None:
    assert rcpt(tmp_path, address) == "250 2.1.5 Recipient accepted"


@pytest.mark.parametrize(
    "address",
    [
        "you@far.test",
        "you@a.here.test",
        "you@nothere.test",
        "you@here.test.far.test",
        "you@below.test",
        "you@xbelow.test",
        "you@[192.0.2.1]",
        "you%far.test@here.test",
        "far.test!you@here.test",
        '"you@far.test"@here.test',
        "@here.test:you@far.test",
    ],
)
def test_others_are_refused_but_for_relay_clients(tmp_path: Path, address: str) -> None:
    assert rcpt(tmp_path, address) == "550 5.7.1 Relaying denied"
    assert rcpt(tmp_path, address, "127.0.0.1").startswith("250")
