"""Who has a message already is known for an hour, of a bounded number of messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.smtpd import taken
from smeconf.smtpd.address import NULL, parse_path
from smeconf.smtpd.message import Message
from smeconf.smtpd.taken import Taken

B, C = parse_path("b@here.test"), parse_path("c@here.test")


def mail(tmp_path: Path, text: bytes = b"A: b\r\n\r\n") -> Message:
    message = Message(str(tmp_path))
    message.write(text)
    return message


def test_same_message_is_recognized_behind_other_trace_fields(tmp_path: Path) -> None:
    known, first, again = Taken(), mail(tmp_path), mail(tmp_path)
    again.add_header("Received: again")

    known.remember(NULL, first, [B])
    known.remember(NULL, first, [C])

    assert known.recipients(NULL, again) == {B, C}
    assert known.recipients(B, again) == frozenset()
    assert known.recipients(NULL, mail(tmp_path, b"x")) == frozenset()
    known.forget(NULL, again)
    assert known.recipients(NULL, first) == frozenset()


def test_memory_ends_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, message = Taken(), mail(tmp_path)
    known.remember(NULL, message, [B])
    now = taken.time.monotonic()

    monkeypatch.setattr(taken.time, "monotonic", lambda: now + 3599)
    assert known.recipients(NULL, message) == {B}
    monkeypatch.setattr(taken.time, "monotonic", lambda: now + 3601)
    assert known.recipients(NULL, message) == frozenset()


def test_memory_is_bounded(tmp_path: Path) -> None:
    known = Taken()
    messages = [mail(tmp_path, b"%d" % n) for n in range(1001)]
    for message in messages:
        known.remember(NULL, message, [B])

    assert known.recipients(NULL, messages[0]) == frozenset()
    assert known.recipients(NULL, messages[1]) == {B}
