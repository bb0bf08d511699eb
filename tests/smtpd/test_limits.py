"""What a client may ask of the filter, and that others do not wait for it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from smeconf.smtpd.config import ConfigError
from smeconf.smtpd.limits import Limits
from smeconf.smtpd.protocol import Connections
from tests.support.smtp import Conversation, Filter, load, on_wire, settle


def talking(tmp_path: Path, limits: str, **files: str) -> Conversation:
    return Conversation(load(tmp_path, {"limits": limits, **files}))


def test_recipients_beyond_the_limit_come_with_another_message(tmp_path: Path) -> None:
    with talking(tmp_path, "recipients 2") as client:
        client.envelope("a@far.test", "one@here.test", "two@here.test")

        answer = client.say("RCPT TO:<three@here.test>")

        assert answer == "452 4.5.3 Too many recipients: 2 a message"
        assert client.send().startswith("250")


def test_client_that_makes_too_many_errors_is_sent_away(tmp_path: Path) -> None:
    limits = "errors_hard 4\nerrors_soft 0\n"
    with talking(tmp_path, limits) as client:
        answers = [client.say("DATA") for _ in range(4)]

        assert [answer[:3] for answer in answers] == ["503", "503", "503", "421"]
        assert answers[-1] == "421 4.7.0 Too many errors"
        assert client.session.closing


def test_errors_beyond_the_soft_limit_are_answered_late(tmp_path: Path) -> None:
    with talking(tmp_path, "errors_soft 2\nerror_delay 1\n") as client:
        begin = time.monotonic()
        client.say("DATA", "DATA")
        at_once = time.monotonic() - begin
        client.say("DATA")
        late = time.monotonic() - begin

    assert at_once < 1 <= late


def test_commands_that_do_nothing_become_errors(tmp_path: Path) -> None:
    with talking(tmp_path, "junk_commands 3\n") as client:
        answers = [client.say(word) for word in ("NOOP", "RSET", "VRFY x", "NOOP")]

        assert [answer[:3] for answer in answers] == ["250", "250", "252", "450"]
        client.deliver()  # after which patience begins anew
        assert client.say("NOOP").startswith("250")


def test_header_beyond_its_limit_is_refused(tmp_path: Path) -> None:
    with talking(tmp_path, "header_size 100") as client:
        long = "".join(f"X-{number}: y\r\n" for number in range(30))

        answer = client.deliver(message=f"{long}\r\nx\r\n")

        assert answer == "552 5.3.4 The header is too big"
        assert client.deliver(message=f"A: b\r\n\r\n{'x' * 70}\r\n" * 9)[:3] == "250"


def test_message_that_comes_too_slowly_is_ended(tmp_path: Path) -> None:
    async def work() -> None:
        limits = "data_grace 10\ndata_rate 100"
        connections = Connections(load(tmp_path, {"limits": limits}), 1)
        protocol, wire = on_wire(connections)
        protocol.data_received(
            b"EHLO c\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@here.test>\r\nDATA\r\n"
        )
        protocol.data_received(b"x" * 1050)
        now = asyncio.get_running_loop().time()

        connections.close_idle(now + 10.2)
        assert not wire.closed
        connections.close_idle(now + 11)

        assert wire.closed
        assert wire.replies[-1] == ("421 4.4.2 The message comes too slowly, closing")

    asyncio.run(work())


def test_client_that_sends_a_letter_now_and_then_is_as_good_as_silent(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        connections = Connections(load(tmp_path, {"timeoutsmtpd": "5"}), 1)
        protocol, wire = on_wire(connections)
        protocol.last_step -= 6
        protocol.data_received(b"N")

        connections.close_idle(asyncio.get_running_loop().time())

        assert wire.closed

    asyncio.run(work())


def test_flood_of_commands_lets_others_have_their_turn(tmp_path: Path) -> None:
    async def work() -> None:
        limits = "junk_commands 0\nerrors_hard 0\nerrors_soft 0"
        connections = Connections(load(tmp_path, {"limits": limits}), 1)
        flooding, flooded = on_wire(connections)
        other, wire = on_wire(connections)
        flooding.data_received(b"NOOP\r\n" * 10_000)
        done = sum(text.count("250 ") for text in flooded.replies)

        other.data_received(b"EHLO c.test\r\n")

        assert done < 1000
        assert wire.replies[-1].startswith("250-")
        await settle(flooding)
        done += sum(text.count("250 ") for text in flooded.replies)
        assert done == 10_000

    asyncio.run(work())


def test_another_client_is_served_at_once_while_many_flood(tmp_path: Path) -> None:
    limits = "junk_commands 0\nerrors_hard 0\nerrors_soft 0"
    with Filter(tmp_path, {"limits": limits}) as filter:
        floods = [filter.connect("127.0.0.2") for _ in range(20)]
        for flood in floods:
            flood.read()
            flood.sock.setblocking(False)
            try:
                while True:
                    flood.sock.send(b"NOOP\r\n" * 10_000)
            except BlockingIOError:
                pass

        begin = time.monotonic()
        client = filter.connect("127.0.0.3")
        client.read()
        client.say("EHLO c.test")

        assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "recipient 3",
            "limits:1: there is no limit recipient; did you mean recipients?",
        ),
        ("recipients many", "limits:1: 'many' is no whole number"),
        ("recipients", "limits:1: '' is no whole number"),
    ],
)
def test_limit_that_is_not_understood_is_named(
    tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason.replace("?", r"\?")):
        load(tmp_path, {"limits": text})


def test_limits_without_a_file_are_those_of_postfix(tmp_path: Path) -> None:
    assert load(tmp_path).limits == Limits(
        recipients=1000, errors_soft=10, errors_hard=20, junk_commands=100
    )
