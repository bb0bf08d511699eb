"""Replies on the wire: short, printable, whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.smtpd.hooks import DECIDING, Answer, Verdict, deny
from smeconf.smtpd.replies import denial_reply, refusal_of, reply


def test_lines_of_a_reply_have_hyphens_but_for_the_last() -> None:
    assert reply(250, "", "mx.test", "PIPELINING", "SIZE 0") == (
        b"250-mx.test\r\n250-PIPELINING\r\n250 SIZE 0\r\n"
    )
    assert reply(550, "5.7.1", "a", "b") == b"550-5.7.1 a\r\n550 5.7.1 b\r\n"


def test_line_is_cut_at_512_bytes() -> None:
    for text in ("x" * 2000, "ü" * 2000):
        line = reply(550, "5.7.1", text)

        assert len(line) == 512
        assert line.endswith(b"\r\n")


@given(st.text(), st.sampled_from(["", "5.7.1"]))
def test_nothing_but_printable_ascii_is_ever_sent(text: str, enhanced: str) -> None:
    line = reply(250, enhanced, text)

    assert line.endswith(b"\r\n")
    assert len(line) <= 512
    assert line[:-2].decode("ascii").isprintable()


@given(st.text())
def test_text_of_a_denial_cannot_forge_another_reply(text: str) -> None:
    lines = denial_reply("rcpt", deny(text)).split(b"\r\n")

    assert lines.pop() == b""
    assert all(line[:10] == b"550-5.7.1 " for line in lines[:-1])
    assert lines[-1][:10] == b"550 5.7.1 "


@pytest.mark.parametrize("hook", sorted(DECIDING))
def test_every_hook_that_decides_has_replies_for_its_denials(hook: str) -> None:
    if hook == "queue_post":
        return
    for verdict in (
        Verdict.DENY,
        Verdict.DENYSOFT,
        Verdict.DENY_DISCONNECT,
        Verdict.DENYSOFT_DISCONNECT,
    ):
        refusal = refusal_of(hook, verdict)

        assert 200 <= refusal.code < 600
        assert refusal.enhanced[0] == str(refusal.code)[0]
        assert len(denial_reply(hook, Answer(verdict)).split()) > 2


def test_disconnecting_verdicts_and_refused_connects_close() -> None:
    assert refusal_of("rcpt", Verdict.DENY_DISCONNECT).closes
    assert refusal_of("connect", Verdict.DENY).closes
    assert not refusal_of("rcpt", Verdict.DENY).closes
