"""A message in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smeconf.smtpd import message as messages
from smeconf.smtpd.message import Message


def message_of(spool: Path, *pieces: bytes) -> Message:
    message = Message(str(spool))
    for piece in pieces:
        message.write(piece)
    return message


@given(st.lists(st.binary(max_size=40), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_memory_and_spool_file_give_the_same_message(
    tmp_path: Path, pieces: list[bytes]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small = message_of(tmp_path, *pieces)
        patch.setattr(messages, "MEMORY_BYTES", 10)
        patch.setattr(messages, "_PIECE_BYTES", 7)
        spooled = message_of(tmp_path, *pieces)
        for message in (small, spooled):
            message.add_header("X-Second: 2")
            message.add_header("X-First: 1")

            whole = b"X-First: 1\r\nX-Second: 2\r\n" + b"".join(pieces)
            assert b"".join(message.pieces()) == whole
            assert b"".join(message.received_pieces()) == b"".join(pieces)
            assert message.size == len(b"".join(pieces))
            message.close()


def test_large_message_goes_to_a_file_without_a_name(tmp_path: Path) -> None:
    message = message_of(tmp_path, *[b"x" * 100_000] * 15)

    assert message._file is not None
    assert message._pieces == []
    assert list(tmp_path.iterdir()) == []
    assert sum(map(len, message.pieces())) == 1_500_000
    message.close()


def test_two_readers_of_a_spooled_message_do_not_disturb_each_other(
    tmp_path: Path,
) -> None:
    message = message_of(tmp_path, b"a" * 600_000, b"b" * 600_000)

    first, second = message.received_pieces(), message.received_pieces()
    mixed = [next(first), next(second), *first, *second]

    assert b"".join(mixed).count(b"a") == b"".join(mixed).count(b"b") == 1_200_000
    message.close()


def test_spool_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    message = Message(str(tmp_path / "missing"))

    with pytest.raises(OSError, match="missing"):
        message.write(b"x" * 1_000_001)


HEADERS = (
    b"Subject: one\r\n"
    b"X-Folded: a\r\n b\r\n\tc\r\n"
    b"MESSAGE-ID:<1@x>\r\n"
    b"Subject: two\r\n"
    b"X-Eight: \xc3\xbc\xff\r\n"
    b"\r\n"
    b"X-Body: no\r\n"
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subject", "one"),
        ("X-Folded", "a b\tc"),
        ("Message-Id", "<1@x>"),
        ("x-eight", "ü\ufffd"),
        ("x-body", None),
        ("ject", None),
        ("x-fold", None),
    ],
)
def test_header_field_is_found_by_its_name(
    tmp_path: Path, name: str, value: str | None
) -> None:
    message = message_of(tmp_path, *(bytes((byte,)) for byte in HEADERS))

    assert message.header(name) == value


@pytest.mark.parametrize("text", [b"", b"\r\n", b"\r\nSubject: no\r\n", b"no header"])
def test_message_without_headers_has_none(tmp_path: Path, text: bytes) -> None:
    assert message_of(tmp_path, text).header("subject") is None


def test_header_without_a_body_is_read_to_its_end(tmp_path: Path) -> None:
    assert message_of(tmp_path, b"A: 1\r\nB: 2").header("b") == "2"


def test_endless_header_is_not_read_to_its_end(tmp_path: Path) -> None:
    message = message_of(tmp_path, b"A: 1\r\n" * 100_000, b"Last: 1\r\n\r\n")

    assert message.header("a") == "1"
    assert message.header("last") is None
