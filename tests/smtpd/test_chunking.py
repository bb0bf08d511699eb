"""CHUNKING (RFC 3030): messages in chunks of told size."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.smtpd.data import ChunkDecoder
from smeconf.smtpd.protocol import Connections
from tests.support.smtp import load, mails, on_wire, settle

ENVELOPE = b"EHLO c.test\r\nMAIL FROM:<a@far.test>\r\nRCPT TO:<you@here.test>\r\n"
TEXT = b"Subject: hello\r\n\r\n.\r\nHello.\r\n"


def replies(
    tmp_path: Path, *pieces: bytes, files: dict[str, str] | None = None
) -> list[str]:
    """What a client is told that sends these pieces, each in a packet of its own."""

    async def work() -> list[str]:
        protocol, wire = on_wire(Connections(load(tmp_path, files), 1))
        for piece in pieces:
            protocol.data_received(piece)
            await settle(protocol)
        return "\n".join(wire.replies).split("\n")

    return asyncio.run(work())


def codes(said: list[str]) -> list[str]:
    return [line[:3] for line in said if line[3:4] == " "]


def test_message_in_one_chunk_is_taken_as_it_is(tmp_path: Path) -> None:
    """A line that is a dot ends nothing here."""
    chunk = b"BDAT %d LAST\r\n" % len(TEXT) + TEXT

    said = replies(tmp_path, ENVELOPE + chunk + b"NOOP\r\n")

    assert codes(said) == ["220", "250", "250", "250", "250", "250"]
    (mail,) = mails(tmp_path / "root/var/mail")
    assert mail.endswith(b"\n\n.\nHello.\n")


@given(st.data())
def test_message_may_be_cut_into_chunks_and_packets_anywhere(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    tmp_path = tmp_path_factory.mktemp("chunks")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(TEXT)), max_size=4)))
    parts = [TEXT[a:b] for a, b in zip([0, *cuts], [*cuts, len(TEXT)], strict=True)]
    stream = ENVELOPE
    for part in parts[:-1]:
        stream += b"BDAT %d\r\n" % len(part) + part
    stream += b"BDAT %d LAST\r\n" % len(parts[-1]) + parts[-1] + b"NOOP\r\n"
    packets = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)))
    pieces = [
        stream[a:b]
        for a, b in zip([0, *packets], [*packets, len(stream)], strict=True)
        if a < b
    ]

    said = replies(tmp_path, *pieces)

    assert set(codes(said)[1:]) == {"250"}
    (mail,) = mails(tmp_path / "root/var/mail")
    assert mail.endswith(b"\n\n.\nHello.\n")


@pytest.mark.parametrize(
    ("before", "code"),
    [(b"", "503"), (b"EHLO c\r\n", "503"), (b"EHLO c\r\nMAIL FROM:<>\r\n", "503")],
)
def test_chunk_that_comes_too_early_is_read_and_is_no_commands(
    tmp_path: Path, before: bytes, code: str
) -> None:
    said = replies(tmp_path, before + b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")

    assert codes(said)[-2:] == [code, "250"]


def test_chunk_whose_size_is_unknown_ends_the_connection(tmp_path: Path) -> None:
    """What follows may be the text of a message: it must not be read as commands."""
    said = replies(tmp_path, ENVELOPE + b"BDAT x LAST\r\nNOOP\r\nNOOP\r\n")

    assert codes(said)[-1] == "501"
    assert codes(said).count("501") == 1


def test_data_does_not_mix_with_chunks(tmp_path: Path) -> None:
    said = replies(tmp_path, ENVELOPE + b"BDAT 3\r\nx\r\nDATA\r\nRSET\r\nDATA\r\n")

    assert codes(said)[-3:] == ["503", "250", "503"]


def test_chunks_beyond_the_size_limit_are_refused_and_forgotten(
    tmp_path: Path,
) -> None:
    said = replies(
        tmp_path,
        ENVELOPE + b"BDAT 40\r\n" + b"x" * 38 + b"\r\nBDAT 2 LAST\r\n\r\nNOOP\r\n",
        files={"databytes": "30"},
    )

    assert codes(said)[-3:] == ["552", "503", "250"]
    assert not (tmp_path / "root/var/mail/new").exists() or not mails(
        tmp_path / "root/var/mail"
    )


@pytest.mark.parametrize(
    "chunks",
    [
        [b"a\nb\r\n"],
        [b"a\rb\r\n"],
        [b"a\r", b"b\r\n"],
        [b"a\r\n", b"\nb\r\n"],
        [b"a\r"],
    ],
)
def test_bare_newline_in_chunks_is_refused(tmp_path: Path, chunks: list[bytes]) -> None:
    """The next server might get it by DATA, and read an end into it."""
    stream = b"".join(b"BDAT %d\r\n" % len(chunk) + chunk for chunk in chunks)

    said = replies(tmp_path, ENVELOPE + stream + b"BDAT 0 LAST\r\n")

    assert said[-1] == "550 5.6.0 A bare CR or LF in the message"


@given(st.lists(st.text("ab\r\n", max_size=6)))
def test_bare_newlines_are_found_wherever_chunks_are_cut(parts: list[str]) -> None:
    decoder = ChunkDecoder()
    for part in parts:
        decoder.begin(len(part))
        decoder.feed(part.encode())
    decoder.end()

    whole = "".join(parts).replace("\r\n", "")

    assert decoder.has_bare_newline is ("\r" in whole or "\n" in whole)
