"""The log: one line an event, whatever a client sent."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.smtpd.log import DEBUG, ERROR, INFO, Log, one_field


def written(text: str, level: int = INFO, of: int = INFO) -> str:
    """What a log of level `of` writes."""
    read, write = os.pipe()
    try:
        Log(of, write).line(level, text)
        os.close(write)
        return os.read(read, 65536).decode("utf-8")
    finally:
        os.close(read)


def test_line_is_written_as_it_is() -> None:
    assert written("1.1 (rcpt) rcpt_ok: pass, bücher\tx") == (
        "1.1 (rcpt) rcpt_ok: pass, bücher\tx\n"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb", r"a\x0ab"),
        ("a\r\nb", r"a\x0d\x0ab"),
        ("a\0b", r"a\x00b"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x7f", r"\x7f"),
        ("\x85\x9b", r"\x85\x9b"),
        (b"\xff".decode("utf-8", "surrogateescape"), r"\xff"),
    ],
)
def test_control_characters_are_written_as_escapes(text: str, line: str) -> None:
    assert written(text) == line + "\n"


@given(st.text(st.characters(), max_size=50))
def test_one_event_is_one_line(text: str) -> None:
    line = written(text)

    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert "\r" not in line
    assert "\x1b" not in line


def test_what_is_less_urgent_than_the_level_is_left_out() -> None:
    assert written("x", DEBUG) == ""
    assert written("x", ERROR, ERROR) == "x\n"
    assert written("x", INFO, ERROR) == ""


def test_log_that_cannot_be_written_stops_nothing() -> None:
    read, write = os.pipe()
    os.close(read)

    Log(INFO, write).line(INFO, "x")

    os.close(write)


def test_field_has_no_tab() -> None:
    assert one_field("a\tb") == "a b"
