"""The SMTP client: what a next server may do, and what becomes of the message."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from smeconf.smtpd import client, delivery
from smeconf.smtpd.address import parse_path
from smeconf.smtpd.client import (
    Envelope,
    Refused,
    Reply,
    Target,
    Terms,
    Unreachable,
    parse_target,
)
from smeconf.smtpd.delivery import Delivery, Pool
from smeconf.smtpd.message import Message
from smeconf.smtpd.worker import new_event_loop
from tests.support.next_server import (
    CLOSE,
    RESET,
    SILENT,
    NextServer,
    make_certificate,
)
from tests.support.smtp import MAIL, free_port

ENVELOPE = Envelope(
    parse_path("a@far.test"), (parse_path("b@here.test"), parse_path("c@here.test"))
)
TERMS = Terms(me="mx.test", timeout=10, tls="no")


CLOSED: list[asyncio.StreamWriter] = []


@pytest.fixture(autouse=True)
def _note_what_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encryption takes a few turns to end, for which a loop that ends must wait."""
    close = asyncio.StreamWriter.close

    def note(writer: asyncio.StreamWriter) -> None:
        if threading.current_thread() is threading.main_thread():
            CLOSED.append(writer)
        close(writer)

    monkeypatch.setattr(asyncio.StreamWriter, "close", note)


def mail(tmp_path: Path, text: bytes = MAIL.encode()) -> Message:
    message = Message(str(tmp_path))
    message.write(text)
    return message


def run(
    work: Callable[[Pool], Awaitable[object]],
    terms: Terms,
    keep: int = 0,
    loop: Callable[[], asyncio.AbstractEventLoop] = new_event_loop,
) -> None:
    """Run a piece of a conversation, on a pool of its own."""

    async def whole() -> None:
        pool = Pool(terms, keep)
        async with asyncio.timeout(15):
            try:
                await work(pool)
            finally:
                pool.close()
                for writer in CLOSED:
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
                CLOSED.clear()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(whole())


def deliver(
    tmp_path: Path,
    *ports: int,
    terms: Terms = TERMS,
    envelope: Envelope = ENVELOPE,
    times: int = 1,
    keep: int = 0,
    host: str = "127.0.0.1",
    asks_data: bool = False,
) -> list[Reply]:
    """Deliver a message; return the replies to the end of the last."""
    replies: list[Reply] = []

    async def work(pool: Pool) -> None:
        for _ in range(times):
            targets = [Target(host, port) for port in ports]
            one = Delivery(pool, targets, envelope)
            try:
                await one.begin(asks_data=asks_data)
                replies[:] = await one.send(mail(tmp_path))
            finally:
                one.abandon()

    run(work, terms, keep)
    return replies


def offering(*extensions: str) -> str:
    lines = ["next.test", *extensions]
    return "\r\n".join(
        f"250{'-' if n < len(lines) - 1 else ' '}{line}" for n, line in enumerate(lines)
    )


STEPS = ["greeting", "EHLO", "MAIL", "RCPT", "DATA"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("cut", [CLOSE, RESET, "421 4.3.2 going down"])
def test_message_that_was_not_handed_over_is_tried_again_once(
    tmp_path: Path, step: str, cut: str
) -> None:
    with NextServer(turns=[{step: cut}, {}]) as server:
        assert deliver(tmp_path, server.port) == [Reply(250, "ok, queued as 7")]

    assert server.connections == 2
    assert len(server.messages) == 1


@pytest.mark.parametrize("step", STEPS)
def test_server_that_always_hangs_up_is_left_after_the_second_time(
    tmp_path: Path, step: str
) -> None:
    with NextServer(**{step: CLOSE}) as bad, NextServer() as good:
        deliver(tmp_path, bad.port, good.port)

    assert bad.connections == 2
    assert len(good.messages) == 1


@pytest.mark.parametrize("loop", [new_event_loop, asyncio.new_event_loop])
def test_message_that_was_cut_off_is_sent_once_more(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def work(pool: Pool) -> None:
        one = Delivery(pool, [Target("127.0.0.1", server.port)], ENVELOPE)
        await one.begin()
        await one.send(message)

    message = mail(tmp_path, b"0123456789\r\n" * 2_000_000)
    with NextServer(turns=[{"text": CLOSE}, {}]) as server:
        run(work, TERMS, loop=loop)
    message.close()

    assert server.connections == 2
    assert len(server.message) == 24_000_000


@pytest.mark.parametrize("end", [CLOSE, RESET, SILENT])
def test_message_that_was_handed_over_is_never_sent_again(
    tmp_path: Path, end: str
) -> None:
    terms = replace(TERMS, timeout=1 if end == SILENT else 10)
    with (
        NextServer(end=end) as server,
        NextServer() as other,
        pytest.raises(Unreachable) as caught,
    ):
        deliver(tmp_path, server.port, other.port, terms=terms)

    assert caught.value.is_handed_over
    assert len(server.messages) == 1
    assert server.connections == 1
    assert other.connections == 0


def test_421_to_the_end_of_data_is_a_refusal_for_now(tmp_path: Path) -> None:
    with NextServer(end="421 later") as server, pytest.raises(Refused) as caught:
        deliver(tmp_path, server.port)

    assert not caught.value.is_final
    assert server.connections == 1


@pytest.mark.parametrize("step", STEPS)
def test_server_that_falls_silent_is_left_for_the_next_in_time(
    tmp_path: Path, step: str
) -> None:
    terms = replace(TERMS, timeout=1)
    with NextServer(**{step: SILENT}) as slow, NextServer() as good:
        deliver(tmp_path, slow.port, good.port, terms=terms)

    assert slow.connections == 1
    assert len(good.messages) == 1


def test_targets_that_are_down_come_last_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down, up = Target("127.0.0.1", free_port()), Target("127.0.0.1", 1)
    pool = Pool(TERMS)

    async def try_it() -> None:
        with pytest.raises(Unreachable):
            await pool.get(down)

    asyncio.run(try_it())

    assert pool.in_turn([down, up]) == [up, down]
    later = time.monotonic() + 31
    monkeypatch.setattr(delivery.time, "monotonic", lambda: later)
    assert pool.in_turn([down, up]) == [down, up]


def test_every_address_of_a_name_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with an address where nobody listens, and one where somebody does."""

    async def two(*_: object) -> list[str]:
        return ["127.0.0.77", "127.0.0.1"]

    monkeypatch.setattr(client, "_addresses_of", two)
    with NextServer() as server:
        deliver(tmp_path, server.port, host="next.test")

    assert len(server.messages) == 1


def test_refused_recipient_keeps_the_message_here(tmp_path: Path) -> None:
    script = {"RCPT TO:<c@here.test>": "550 no c"}
    with NextServer(**script) as server, pytest.raises(Refused) as caught:
        deliver(tmp_path, server.port)

    assert [reply.code for reply in caught.value.replies] == [250, 550]
    assert not caught.value.is_final
    refused = caught.value.refused_for_good(ENVELOPE.recipients)
    assert refused == [parse_path("c@here.test")]
    assert "DATA" not in server.lines


def test_pipelined_envelope_with_a_refusal_is_dropped_without_a_message(
    tmp_path: Path,
) -> None:
    """DATA was sent with it and answered 354: only hanging up gets out of that."""
    script = {"EHLO": offering("PIPELINING"), "RCPT TO:<c@here.test>": "550 no c"}
    with NextServer(**script) as server, pytest.raises(Refused):
        deliver(tmp_path, server.port, keep=4, asks_data=True)

    assert server.verbs == ["EHLO", "MAIL", "RCPT", "RCPT", "DATA"]
    assert server.messages == []


def test_pipelined_commands_arrive_in_one_packet(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in (b"220 hi", b"250-next\r\n250 PIPELINING"):
            writer.write(reply + b"\r\n")
            packets.append(await reader.read(65536))
        writer.close()

    packets: list[bytes] = []

    async def work() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        one = Delivery(Pool(TERMS), [Target("127.0.0.1", port)], ENVELOPE)
        with pytest.raises(Unreachable):
            await one.begin(asks_data=True)
        server.close()

    asyncio.run(work())

    assert packets[1] == (
        b"MAIL FROM:<a@far.test>\r\nRCPT TO:<b@here.test>\r\n"
        b"RCPT TO:<c@here.test>\r\nDATA\r\n"
    )


def test_parameters_are_given_where_they_are_offered_and_needed(tmp_path: Path) -> None:
    everything = replace(ENVELOPE, size=77, eight_bit=True, utf8=True)
    with NextServer(EHLO=offering("SIZE 0", "8BITMIME", "SMTPUTF8")) as server:
        deliver(tmp_path, server.port, envelope=everything)
        deliver(tmp_path, server.port)
    with NextServer() as plain:
        deliver(tmp_path, plain.port, envelope=everything)

    mails = [line for line in server.lines if line.startswith("MAIL")]
    assert mails == [
        "MAIL FROM:<a@far.test> SIZE=77 BODY=8BITMIME SMTPUTF8",
        "MAIL FROM:<a@far.test>",
    ]
    assert "MAIL FROM:<a@far.test>" in plain.lines


def test_address_beyond_ascii_goes_only_to_who_takes_it(tmp_path: Path) -> None:
    envelope = replace(ENVELOPE, sender=parse_path("ä@far.test"))
    with NextServer() as server, pytest.raises(Refused) as caught:
        deliver(tmp_path, server.port, envelope=envelope)

    assert caught.value.is_final
    assert server.lines[1:] in ([], ["QUIT"])


def test_old_server_is_greeted_with_helo(tmp_path: Path) -> None:
    with NextServer(EHLO="502 what?") as server:
        deliver(tmp_path, server.port)

    assert server.verbs[:3] == ["EHLO", "HELO", "MAIL"]


def test_server_is_told_of_our_client_where_it_takes_that(tmp_path: Path) -> None:
    envelope = replace(ENVELOPE, client=("2001:db8::1", "cli ent+"))
    terms = replace(TERMS, xclient=True)
    script = {"EHLO": offering("XCLIENT NAME ADDR HELO"), "XCLIENT": "220 anew"}
    with NextServer(**script) as server:
        deliver(tmp_path, server.port, envelope=envelope, terms=terms)

    line = "XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::1 HELO=cli+20ent+2B"
    assert server.lines[1] == line
    assert server.verbs[:4] == ["EHLO", "XCLIENT", "EHLO", "MAIL"]


# Encryption and logins


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("tls", ["may", "must"])
def test_offered_encryption_is_taken_whoever_the_server_is(
    tmp_path: Path, certificate: Path, tls: str
) -> None:
    script = {"EHLO": offering("STARTTLS")}
    with NextServer(certificate=certificate, **script) as server:
        deliver(tmp_path, server.port, terms=replace(TERMS, tls=tls))

    assert server.verbs[:4] == ["EHLO", "STARTTLS", "EHLO", "MAIL"]


@pytest.mark.parametrize(("tls", "is_sent"), [("may", True), ("must", False)])
def test_server_without_encryption(tmp_path: Path, tls: str, is_sent: bool) -> None:
    with NextServer() as server:
        if is_sent:
            deliver(tmp_path, server.port, terms=replace(TERMS, tls=tls))
        else:
            with pytest.raises(Unreachable, match="offers no encryption"):
                deliver(tmp_path, server.port, terms=replace(TERMS, tls=tls))

    assert ("MAIL" in server.verbs) is is_sent


def test_certificate_that_nobody_trusts_gets_no_mail(
    tmp_path: Path, certificate: Path
) -> None:
    script = {"EHLO": offering("STARTTLS")}
    with (
        NextServer(certificate=certificate, **script) as server,
        pytest.raises(Unreachable, match="certificate verify failed"),
    ):
        deliver(
            *(tmp_path, server.port),
            terms=replace(TERMS, tls="verify"),
            host="localhost",
        )

    assert "MAIL" not in server.verbs


@pytest.mark.parametrize(("host", "is_sent"), [("localhost", True), ("::1", False)])
def test_trusted_certificate_must_be_of_the_server(
    tmp_path: Path,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    is_sent: bool,
) -> None:
    async def loopback(*_: object) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(client, "_addresses_of", loopback)
    terms = replace(TERMS, tls="verify")
    with NextServer(certificate=certificate, EHLO=offering("STARTTLS")) as server:
        if is_sent:
            deliver(tmp_path, server.port, terms=terms, host=host)
        else:
            with pytest.raises(Unreachable, match="certificate verify failed"):
                deliver(tmp_path, server.port, terms=terms, host=host)

    assert ("MAIL" in server.verbs) is is_sent


def test_what_is_said_in_the_clear_behind_starttls_is_not_believed(
    tmp_path: Path, certificate: Path
) -> None:
    script = {"EHLO": offering("STARTTLS"), "STARTTLS": "220 go\r\n250 AUTH PLAIN"}
    with (
        NextServer(certificate=certificate, **script) as server,
        pytest.raises(Unreachable, match="in the clear"),
    ):
        deliver(tmp_path, server.port, terms=replace(TERMS, tls="must"))


@pytest.mark.parametrize("script", [{"STARTTLS": "454 not now"}, {}])
def test_encryption_that_fails_is_done_without_where_it_may(
    tmp_path: Path, script: dict[str, str]
) -> None:
    """The second server says 220 and then has no certificate."""
    with NextServer(EHLO=offering("STARTTLS"), **script) as server:
        deliver(tmp_path, server.port, terms=replace(TERMS, tls="may"))

    assert len(server.messages) == 1


def with_login(port: int, **changes: object) -> Terms:
    logins = {Target("127.0.0.1", port): ("me", "secret")}
    return replace(TERMS, tls="may", logins=logins, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mechanisms", "expected"),
    [
        ("LOGIN PLAIN", ["AUTH PLAIN AG1lAHNlY3JldA=="]),
        ("LOGIN", ["AUTH LOGIN", "bWU=", "c2VjcmV0"]),
    ],
)
def test_login_is_given_inside_encryption(
    tmp_path: Path, certificate: Path, mechanisms: str, expected: list[str]
) -> None:
    script = {
        "EHLO": offering("STARTTLS", f"AUTH {mechanisms}"),
        "AUTH PLAIN AG1lAHNlY3JldA==": "235 in",
        "AUTH LOGIN": "334 VXNlcm5hbWU6",
        "bWU=": "334 UGFzc3dvcmQ6",
        "c2VjcmV0": "235 in",
    }
    with NextServer(certificate=certificate, **script) as server:
        deliver(tmp_path, server.port, terms=with_login(server.port))

    assert server.lines[3 : 3 + len(expected)] == expected
    assert len(server.messages) == 1


def test_login_is_not_given_in_the_clear_unless_told(tmp_path: Path) -> None:
    script = {"EHLO": offering("AUTH PLAIN"), "AUTH": "235 in"}
    with NextServer(**script) as server:
        with pytest.raises(Unreachable, match="no login without encryption"):
            deliver(tmp_path, server.port, terms=with_login(server.port))
        assert "AUTH" not in server.verbs

        terms = with_login(server.port, login_in_clear=True)
        deliver(tmp_path, server.port, terms=terms)
        assert "AUTH" in server.verbs


def test_refused_login_puts_the_mail_off_and_shows_no_password(tmp_path: Path) -> None:
    script = {"EHLO": offering("AUTH PLAIN"), "AUTH": "535 who?"}
    with NextServer(**script) as server:
        terms = with_login(server.port, login_in_clear=True)
        with pytest.raises(Unreachable) as caught:
            deliver(tmp_path, server.port, terms=terms)

    assert "535 who?" in str(caught.value)
    assert "secret" not in f"{caught.value} {terms}"


# Connections that are kept


def test_connection_is_kept_for_the_next_message(tmp_path: Path) -> None:
    with NextServer() as server:
        deliver(tmp_path, server.port, times=3, keep=1)

    assert server.connections == 1
    assert len(server.messages) == 3
    assert server.verbs.count("EHLO") == 1


def test_kept_connection_is_there_again_after_a_refusal(tmp_path: Path) -> None:
    async def work(pool: Pool) -> None:
        for _ in range(2):
            target = Target("127.0.0.1", server.port)
            with pytest.raises(Refused):
                await Delivery(pool, [target], ENVELOPE).begin()

    with NextServer(RCPT="550 no") as server:
        run(work, TERMS, keep=1)

    assert server.connections == 1
    assert server.verbs[-5:-1] == ["RSET", "MAIL", "RCPT", "RCPT"]


def test_kept_connection_that_died_is_replaced_silently(tmp_path: Path) -> None:
    async def work(pool: Pool) -> None:
        for number in range(2):
            target = Target("127.0.0.1", server.port)
            one = Delivery(pool, [target], ENVELOPE)
            await one.begin()
            await one.send(mail(tmp_path))
            if not number:
                await asyncio.to_thread(server.drop_all)

    with NextServer() as server:
        run(work, TERMS, keep=1)

    assert server.connections == 2
    assert len(server.messages) == 2


def test_connection_that_waited_long_is_asked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_FRESH_SECONDS", 0.0)
    with NextServer() as server:
        deliver(tmp_path, server.port, times=2, keep=1)

    assert server.verbs.count("RSET") == 1
    assert server.connections == 1


def test_no_more_connections_are_kept_than_asked_for(tmp_path: Path) -> None:
    async def work(pool: Pool) -> None:
        target = Target("127.0.0.1", server.port)
        deliveries = [Delivery(pool, [target], ENVELOPE) for _ in range(4)]
        for one in deliveries:
            await one.begin()
        for one in deliveries:
            await one.send(mail(tmp_path))
        await asyncio.to_thread(server.wait_for_open, 2)

    with NextServer() as server:
        run(work, TERMS, keep=2)

    assert len(server.messages) == 4


def test_connections_are_closed_when_they_waited_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(pool: Pool) -> None:
        one = Delivery(pool, [Target("127.0.0.1", server.port)], ENVELOPE)
        await one.begin()
        await one.send(mail(tmp_path))
        closing = asyncio.ensure_future(pool.close_stale())
        await asyncio.to_thread(server.wait_for_open, 0)
        closing.cancel()

    monkeypatch.setattr(delivery, "_IDLE_SECONDS", 0.1)
    with NextServer() as server:
        run(work, TERMS, keep=2)


# Places


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("next.test", Target("next.test", 25)),
        ("next.test:26", Target("next.test", 26)),
        ("[::1]:26", Target("::1", 26)),
        ("[::1]", Target("::1", 25)),
        ("::1", Target("::1", 25)),
        ("unix:/run/lmtp", Target("", 0, "/run/lmtp")),
    ],
)
def test_target_is_read(text: str, target: Target) -> None:
    assert parse_target(text, 25) == target


@pytest.mark.parametrize(
    "text", ["", ":25", "a:0", "a:65536", "a:smtp", "unix:run", "[::1", "[::1]x", "a:²"]
)
def test_target_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"names no host|no port|socket is|is no"):
        parse_target(text, 25)
