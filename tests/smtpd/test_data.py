"""The end of DATA, against a reference that reads line by line."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smeconf.smtpd.data import DataDecoder


def reference(stream: bytes) -> tuple[bytes, bytes | None, bool]:
    """Message, rest (None: no end) and whether a CR or LF stood alone."""
    message, bare = b"", False
    lines = stream.split(b"\r\n")
    for number, line in enumerate(lines[:-1]):
        if line == b".":
            return message, b"\r\n".join(lines[number + 1 :]), bare
        bare = bare or b"\r" in line or b"\n" in line
        message += line.removeprefix(b".") + b"\r\n"
    return message, None, bare


def decode(packets: list[bytes]) -> tuple[bytes, bytes | None, DataDecoder]:
    decoder, message = DataDecoder(), b""
    for number, packet in enumerate(packets):
        piece, rest = decoder.feed(packet)
        message += piece
        if rest is not None:
            return message, rest + b"".join(packets[number + 1 :]), decoder
    return message, None, decoder


def packets_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


bits = [b"\r\n", b"\r", b"\n", b".", b"a", b"..", b"\r\n.", b"\r\n.\r\n", b"\n.\n"]
streams = st.lists(st.sampled_from(bits), max_size=12).map(b"".join)


@given(streams, st.lists(st.integers(0, 40), max_size=8))
@settings(max_examples=600)
@example(b".\r\n", [])
@example(b"\r\n.\r\nQUIT\r\n", [1, 2, 3, 4])
@example(b"\r\r\n.\r\n", [1])
def test_every_split_into_packets_gives_the_message_of_the_reference(
    stream: bytes, cuts: list[int]
) -> None:
    message, rest, bare = reference(stream)

    got, got_rest, decoder = decode(packets_of(stream, cuts))

    assert got_rest == rest
    if rest is not None:
        assert decoder.has_bare_newline == bare
        if not bare:
            assert got == message


@given(streams)
@settings(max_examples=200)
def test_byte_by_byte_is_the_same_as_at_once(stream: bytes) -> None:
    at_once, rest, decoder = decode([stream])
    single, single_rest, other = decode([stream[n : n + 1] for n in range(len(stream))])

    assert single_rest == rest
    if rest is not None:
        assert single == at_once
        assert other.has_bare_newline == decoder.has_bare_newline


@given(st.lists(st.binary(max_size=6), max_size=6), st.lists(st.integers(0, 99)))
def test_what_a_client_stuffs_arrives_as_it_was(
    lines: list[bytes], cuts: list[int]
) -> None:
    clean = [line.replace(b"\r", b"").replace(b"\n", b"") for line in lines]
    message = b"".join(line + b"\r\n" for line in clean)
    stuffed = b"".join(
        (b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in clean
    )

    got, rest, decoder = decode(packets_of(stuffed + b".\r\nNOOP\r\n", cuts))

    assert (got, rest, decoder.has_bare_newline) == (message, b"NOOP\r\n", False)


@pytest.mark.parametrize(
    "end",
    [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\n.\r", b"\r.\r\n"],
)
def test_no_other_line_end_ends_a_message(end: bytes) -> None:
    message, rest, decoder = decode([b"a" + end + b"MAIL FROM:<x@y>\r\n"])
    assert rest is None

    _, rest = decoder.feed(b".\r\nNOOP\r\n")

    assert rest == b"NOOP\r\n"
    assert decoder.has_bare_newline
    assert b"MAIL FROM" in message
