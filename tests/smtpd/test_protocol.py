"""From bytes to commands and back: pipelining, waiting, limits, clients that go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from smeconf.dns import Resolver
from smeconf.smtpd.hooks import DECLINED, OK, Answer, PluginList, ok
from smeconf.smtpd.log import Log
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Context, Plugin
from smeconf.smtpd.protocol import Connections, SmtpProtocol
from smeconf.smtpd.state import Connection
from tests.support.smtp import Wire, on_wire, settle, stand_in


class Gate(Plugin):
    """Takes all mail, but waits at a gate in the hooks of `waits_at`."""

    def __init__(self, *waits_at: str) -> None:
        context = Context("mx", "", "/", Resolver([("127.0.0.1", 9)]), Log(7))
        super().__init__("gate", None, context)
        self.gate = asyncio.Event()
        self.waits_at = waits_at
        self.mails: list[bytes] = []
        self.seen: list[str] = []

    async def _pass(self, hook: str, answer: Answer = DECLINED) -> Answer:
        self.seen.append(hook)
        if hook in self.waits_at:
            await self.gate.wait()
        return answer

    async def hook_connect(self, connection: Connection) -> Answer:
        return await self._pass("connect")

    async def hook_noop(self, connection: Connection) -> Answer:
        return await self._pass("noop")

    async def hook_mail(self, connection: Connection, sender: Any) -> Answer:
        return await self._pass("mail")

    async def hook_rcpt(self, connection: Connection, recipient: Any) -> Answer:
        return await self._pass("rcpt", OK)

    async def hook_queue(self, connection: Connection, message: Message) -> Answer:
        await self._pass("queue")
        self.mails.append(b"".join(message.received_pieces()))
        return ok("kept")

    async def hook_disconnect(self, connection: Connection) -> None:
        await self._pass("disconnect")

    def hook_reset_transaction(self, connection: Connection) -> None:
        self.seen.append("reset")


def start(tmp_path: Path, gate: Gate, **settings: Any) -> Any:
    configuration = stand_in(tmp_path, PluginList([gate]), **settings)
    return Connections(configuration, 1)


GROUP = b"EHLO c\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"
TEXT = b"Subject: x\r\n\r\nx\r\n"


def codes(replies: list[str]) -> list[list[str]]:
    """The codes of the replies in each write."""
    return [
        [line[:3] for line in write.split("\n") if line[3:4] == " "]
        for write in replies
    ]


def test_pipelined_group_is_answered_in_one_write(tmp_path: Path) -> None:
    async def work() -> None:
        protocol, wire = on_wire(start(tmp_path, Gate()))
        assert codes(wire.replies) == [["220"]]

        protocol.data_received(GROUP)
        assert codes(wire.replies) == [["250", "250", "250", "354"]]
        protocol.data_received(TEXT + b".\r\n" + GROUP[8:] + TEXT + b".\r\nQUIT\r\n")
        assert codes(wire.replies) == [["250", "250", "250", "354", "250", "221"]]
        assert wire.closed

    asyncio.run(work())


@pytest.mark.parametrize("at", ["connect", "noop", "mail", "rcpt", "queue"])
def test_what_comes_while_a_hook_waits_is_worked_off_in_order_afterwards(
    tmp_path: Path, at: str
) -> None:
    async def work() -> None:
        gate = Gate(at)
        protocol, wire = on_wire(start(tmp_path, gate))
        protocol.data_received(b"NOOP\r\n" + GROUP)
        protocol.data_received(TEXT + b".\r\nNO")
        protocol.data_received(b"OP\r\nQUIT\r\n")
        before = [code for write in codes(wire.replies) for code in write]

        gate.gate.set()
        await settle(protocol)

        after = [code for write in codes(wire.replies) for code in write]
        expected = ["220", "250", "250", "250", "250", "354", "250", "250", "221"]
        assert before + after == expected
        assert len(before) == {"connect": 0, "noop": 1, "mail": 3}.get(
            at, {"rcpt": 4, "queue": 6}.get(at)
        )
        assert gate.mails == [TEXT]

    asyncio.run(work())


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_stream_may_be_cut_anywhere(tmp_path: Path, size: int) -> None:
    stream = GROUP + b"..a\r\n.\r\n" + GROUP[8:] + TEXT + b".\r\nQUIT\r\n"

    async def work() -> None:
        gate = Gate()
        protocol, wire = on_wire(start(tmp_path, gate))
        for at in range(0, len(stream), size):
            protocol.data_received(stream[at : at + size])

        assert gate.mails == [b".a\r\n", TEXT]
        assert wire.closed

    asyncio.run(work())


def test_only_crlf_ends_a_line(tmp_path: Path) -> None:
    async def work() -> None:
        protocol, wire = on_wire(start(tmp_path, Gate()))
        wire.writes.clear()
        protocol.data_received(b"NOOP\nNOOP\r")
        assert wire.replies == ["500 5.5.2 A line ends with CR LF"]
        protocol.data_received(b"NOOP\r\n")
        assert codes(wire.replies) == [["500"]]
        protocol.data_received(b"NOOP\r\n")
        assert codes(wire.replies) == [["250"]]

    asyncio.run(work())


def test_message_behind_a_bare_newline_dot_is_not_smuggled(tmp_path: Path) -> None:
    second = b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nx\r\n"

    async def work() -> None:
        for end in (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r\n.\n"):
            gate = Gate()
            protocol, wire = on_wire(start(tmp_path, gate))
            protocol.data_received(GROUP)
            wire.writes.clear()

            protocol.data_received(TEXT + end + second + b".\r\n")

            assert wire.replies == ["550 5.6.0 A bare CR or LF in the message"]
            assert gate.mails == []
            protocol.data_received(b"NOOP\r\n")
            assert codes(wire.replies) == [["250"]]

    asyncio.run(work())


@pytest.mark.parametrize("line", [b"NOOP " + b"x" * 2048 + b"\r\n", b"x" * 2049])
def test_line_that_is_too_long_ends_the_connection(tmp_path: Path, line: bytes) -> None:
    async def work() -> None:
        protocol, wire = on_wire(start(tmp_path, Gate()))
        protocol.data_received(b"NOOP " + b"x" * 2041 + b"\r\n" + line + b"NOOP\r\n")

        replies = "\n".join(wire.replies).split("\n")
        assert replies == [
            "220 mx.test ESMTP",
            "250 2.0.0 OK",
            "421 4.5.2 A line is too long",
        ]
        assert wire.closed

    asyncio.run(work())


def test_client_that_floods_a_waiting_session_is_read_no_more(tmp_path: Path) -> None:
    async def work() -> None:
        gate = Gate("noop")
        protocol, wire = on_wire(start(tmp_path, gate))
        protocol.data_received(b"NOOP\r\n")
        while wire.reading:
            assert len(protocol._waiting) < 10**6
            protocol.data_received(b"RSET\r\n" * 1000)

        gate.gate.set()
        await settle(protocol)

        assert wire.reading
        assert protocol._waiting == b""

    asyncio.run(work())


def test_client_that_does_not_read_is_not_read_from(tmp_path: Path) -> None:
    async def work() -> None:
        protocol, wire = on_wire(start(tmp_path, Gate()))
        protocol.pause_writing()
        assert not wire.reading
        protocol.resume_writing()
        assert wire.reading

    asyncio.run(work())


STAGES = [
    b"",
    b"EH",
    b"EHLO c\r\n",
    b"EHLO c\r\nMAIL FROM:<a@x.test>\r\n",
    GROUP[:-6],
    GROUP,
    GROUP + TEXT,
    GROUP + TEXT + b".",
    GROUP + TEXT + b".\r",
]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["lost", "half-closed"])
def test_client_that_vanishes_leaves_nothing(
    tmp_path: Path, stage: bytes, how: str
) -> None:
    async def work() -> None:
        gate = Gate()
        connections = start(tmp_path, gate)
        protocol, _wire = on_wire(connections)
        protocol.data_received(stage)
        if how == "half-closed":
            assert not protocol.eof_received()  # the transport closes itself
        protocol.connection_lost(None)

        assert gate.mails == []
        assert gate.seen[-1] == "disconnect"
        assert gate.seen.count("disconnect") == 1
        assert gate.seen.count("reset") == (b"MAIL" in stage)
        assert connections.open == set()

    asyncio.run(work())


@pytest.mark.parametrize("at", ["connect", "mail", "queue", "disconnect"])
def test_client_that_vanishes_while_a_hook_waits_is_seen_off_once(
    tmp_path: Path, at: str
) -> None:
    async def work() -> None:
        gate = Gate(at)
        connections = start(tmp_path, gate)
        protocol, _wire = on_wire(connections)
        protocol.data_received(GROUP + TEXT + b".\r\n")
        protocol.connection_lost(None)
        assert connections.open == {protocol}

        gate.gate.set()
        await settle(protocol)

        assert gate.seen.count("disconnect") == 1
        assert gate.seen.count("reset") == (at != "connect")
        assert len(gate.mails) == (at in ("queue", "disconnect"))
        assert connections.open == set()

    asyncio.run(work())


def test_client_that_half_closed_still_gets_its_replies(tmp_path: Path) -> None:
    async def work() -> None:
        gate = Gate("queue")
        protocol, wire = on_wire(start(tmp_path, gate))
        protocol.data_received(GROUP + TEXT + b".\r\nNOOP\r\n")
        assert protocol.eof_received()
        wire.writes.clear()

        gate.gate.set()
        await settle(protocol)

        assert codes(wire.replies) == [["250", "250"]]
        assert gate.mails == [TEXT]
        assert wire.closed

    asyncio.run(work())


def test_client_that_is_gone_before_it_is_greeted_is_forgotten(tmp_path: Path) -> None:
    async def work() -> None:
        connections = start(tmp_path, Gate())
        wire = Wire()
        wire._extra["peername"] = None  # type: ignore[attr-defined]
        SmtpProtocol(connections).connection_made(wire)

        assert wire.closed
        assert connections.open == set()

    asyncio.run(work())


def test_silent_client_is_told_to_go_but_not_while_a_command_waits(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        gate = Gate("noop")
        connections = start(tmp_path, gate, timeout_seconds=60)
        _protocol, wire = on_wire(connections)
        busy, busy_wire = on_wire(connections)
        busy.data_received(b"NOOP\r\n")
        now = asyncio.get_running_loop().time()

        connections.close_idle(now + 59)
        assert not wire.closed
        connections.close_idle(now + 61)
        assert wire.replies[-1] == "421 4.4.2 Too long silent, closing"
        assert wire.closed
        assert not busy_wire.closed
        gate.gate.set()
        await settle(busy)
        connections.close_idle(now + 59)
        assert not busy_wire.closed

    asyncio.run(work())


def test_client_that_falls_silent_in_a_message_is_told_to_go(tmp_path: Path) -> None:
    async def work() -> None:
        connections = start(tmp_path, Gate(), timeout_seconds=60)
        protocol, wire = on_wire(connections)
        protocol.data_received(GROUP + TEXT)

        connections.close_idle(asyncio.get_running_loop().time() + 61)

        assert wire.closed

    asyncio.run(work())


def test_stopping_lets_a_message_finish(tmp_path: Path) -> None:
    """Whether it is still sent or already being queued."""

    async def work() -> None:
        gate = Gate("queue")
        connections = start(tmp_path, gate)
        _idle, idle_wire = on_wire(connections)
        sending, sending_wire = on_wire(connections)
        sending.data_received(GROUP + TEXT)
        queuing, queuing_wire = on_wire(connections)
        queuing.data_received(GROUP + TEXT + b".\r\n")
        sending_wire.writes.clear()
        queuing_wire.writes.clear()

        connections.stop()

        goodbye = "421 4.3.2 Shutting down, try again later"
        assert idle_wire.replies[-1] == goodbye
        assert idle_wire.closed
        assert not sending_wire.closed
        assert not queuing_wire.closed
        sending.data_received(b"more\r\n.\r\n")
        gate.gate.set()
        await settle(sending)
        await settle(queuing)
        for wire in (sending_wire, queuing_wire):
            assert wire.replies == ["250 2.0.0 kept", goodbye]
            assert wire.closed
        assert sorted(gate.mails) == [TEXT, TEXT + b"more\r\n"]

    asyncio.run(work())


def test_fault_of_the_server_ends_one_connection_with_421(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        protocol, wire = on_wire(start(tmp_path, Gate()))

        async def fail(line: bytes) -> bytes:
            raise RuntimeError("a bug")

        monkeypatch.setattr(protocol._session, "command", fail)
        protocol.data_received(b"NOOP\r\n")

        assert wire.replies[-1].endswith("421 4.3.0 Internal failure, try again later")
        assert wire.closed

    asyncio.run(work())
    assert "RuntimeError: a bug" in capfd.readouterr().err
