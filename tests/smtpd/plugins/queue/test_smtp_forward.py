"""queue/smtp-forward: the client hears 250 only when the next server took the mail."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from tests.support.smtp import MAIL, Conversation, free_port, load

USUAL = {"greeting": "220 next ESMTP", "DATA": "354 go", "end": "250 ok, queued as 7"}
SILENT, CLOSE = "(silent)", "(close)"


class NextServer:
    """Takes one connection and answers by `script`, by verb or whole line.

    `SILENT` in place of a reply waits for the client to go, `CLOSE` hangs up.
    """

    def __init__(self, **script: str) -> None:
        self.script = {**USUAL, **script}
        self.lines: list[str] = []
        self.text: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> NextServer:
        self._listener.settimeout(15)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(15)
        self._listener.close()
        assert not self._thread.is_alive()

    @property
    def message(self) -> bytes:
        """The text as it was sent, its dots still stuffed."""
        return b"".join(self.text)

    def _serve(self) -> None:
        try:
            self._converse()
        except ConnectionError:
            pass  # a client may go as it likes

    def _converse(self) -> None:
        sock, _ = self._listener.accept()
        sock.settimeout(15)
        with sock, sock.makefile("rb") as file:
            if not self._reply(sock, file, "greeting"):
                return
            while line := file.readline():
                text = line.decode().removesuffix("\r\n")
                self.lines.append(text)
                key = text if text in self.script else text.partition(" ")[0]
                if not self._reply(sock, file, key):
                    return
                if key == "DATA" and self.script[key].startswith("354"):
                    while (line := file.readline()) != b".\r\n":
                        if not line:
                            return
                        self.text.append(line)
                    if not self._reply(sock, file, "end"):
                        return

    def _reply(self, sock: socket.socket, file: object, key: str) -> bool:
        reply = self.script.get(key, "250 ok")
        if reply == SILENT:
            sock.recv(1)
        if reply in (SILENT, CLOSE):
            return False
        sock.sendall(reply.encode() + b"\r\n")
        return True


def forward(
    tmp_path: Path,
    port: int,
    *recipients: str,
    message: str | bytes = MAIL,
    options: str = "",
) -> str:
    plugins = f"rcpt_ok\nqueue/smtp-forward 127.0.0.1:{port} {options}"
    with Conversation(load(tmp_path, {"plugins": plugins})) as one:
        return one.deliver(*recipients, message=message)


def test_message_is_handed_on_with_its_envelope(tmp_path: Path) -> None:
    with NextServer() as server:
        reply = forward(tmp_path, server.port, "b@here.test", "c@here.test")

    assert reply == "250 2.0.0 Queued! ok, queued as 7"
    assert server.lines == [
        "EHLO mx.test",
        "MAIL FROM:<a@far.test>",
        "RCPT TO:<b@here.test>",
        "RCPT TO:<c@here.test>",
        "DATA",
        "QUIT",
    ]
    assert server.message.startswith(b"Received: from client.test")
    assert server.message.endswith(MAIL.encode())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\r\n",
        b"..\r\n",
        b"..a\r\n...b\r\nx.\r\n",
        b"a\r\n..\r\n..\r\n\r\n",
        b"\xff\x00\x80 eight bits\r\n",
        b"..\r\n" * 400_000,
    ],
    ids=["empty", "blank", "dot", "dots", "dots alone", "binary", "spooled"],
)
def test_text_arrives_byte_by_byte_as_it_was_sent(tmp_path: Path, text: bytes) -> None:
    """The client stuffed its dots, and so does the filter."""
    with NextServer() as server:
        reply = forward(tmp_path, server.port, message=b"A: b\r\n\r\n" + text)

    assert reply.startswith("250")
    assert server.message.endswith(b"\r\nA: b\r\n\r\n" + text)


def test_odd_addresses_are_written_as_addresses(tmp_path: Path) -> None:
    with NextServer() as server:
        forward(tmp_path, server.port, '"a b"@here.test', "postmaster")

    assert server.lines[2:4] == ['RCPT TO:<"a b"@here.test>', "RCPT TO:<postmaster>"]


LATER = "452 4.7.1 The next server is not ready, try again later"
NO_ANSWER = "452 4.7.1 The next server does not answer, try again later"
STEPS = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "end"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", ["421", "450"])
def test_refused_for_now_is_put_off(tmp_path: Path, step: str, code: str) -> None:
    with NextServer(**{step: f"{code} 4.0.0 later"}) as server:
        assert forward(tmp_path, server.port) == LATER


@pytest.mark.parametrize("step", STEPS[2:])
def test_refused_for_good_is_refused_for_good(
    tmp_path: Path, step: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with NextServer(**{step: "550-5.1.1 no\r\n550 5.1.1 such user"}) as server:
        reply = forward(tmp_path, server.port)

    assert reply == "552 5.7.1 no / such user"
    log = capfd.readouterr().err
    verb = "end of data" if step == "end" else step
    assert f"127.0.0.1:{server.port} answered {verb}: 550 5.1.1 no / " in log


@pytest.mark.parametrize("step", STEPS[:2])
def test_server_that_wants_nothing_of_us_costs_no_mail(
    tmp_path: Path, step: str
) -> None:
    """It says nothing of this message, whose sender must not be told "never"."""
    with NextServer(**{step: "554 no service here"}) as server:
        assert forward(tmp_path, server.port) == LATER


def test_one_recipient_refused_refuses_the_whole_before_it_is_sent(
    tmp_path: Path,
) -> None:
    refused = {"RCPT TO:<c@here.test>": "550 no c"}
    with NextServer(**refused) as server:
        reply = forward(tmp_path, server.port, "b@here.test", "c@here.test")

    assert reply == "552 5.7.1 no c"
    assert server.message == b""
    assert "DATA" not in server.lines


@pytest.mark.parametrize("step", STEPS)
def test_server_that_hangs_up_is_put_off(tmp_path: Path, step: str) -> None:
    with NextServer(**{step: CLOSE}) as server:
        assert forward(tmp_path, server.port) == NO_ANSWER


@pytest.mark.parametrize("step", ["greeting", "RCPT", "end"])
def test_server_that_falls_silent_is_put_off_in_time(tmp_path: Path, step: str) -> None:
    started = time.monotonic()

    with NextServer(**{step: SILENT}) as server:
        assert forward(tmp_path, server.port, options="timeout 1") == NO_ANSWER

    assert time.monotonic() - started < 5


@pytest.mark.parametrize("reply", ["what?", "2x0 odd", "x" * 20_000])
def test_server_that_does_not_speak_smtp_is_put_off(tmp_path: Path, reply: str) -> None:
    with NextServer(greeting=reply) as server:
        assert forward(tmp_path, server.port) == NO_ANSWER


def test_server_that_is_down_is_put_off(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()

    assert forward(tmp_path, port) == NO_ANSWER
    assert f"smtp-forward: error, 127.0.0.1:{port}: " in capfd.readouterr().err


def test_text_of_the_next_server_is_made_harmless(tmp_path: Path) -> None:
    with NextServer(end="250 ok\x1b[31m\xff\x85") as server:
        assert forward(tmp_path, server.port).startswith("250 2.0.0 Queued! ok?[31m")


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("next.test", ("next.test", 25)),
        ("next.test 26", ("next.test", 26)),
        ("next.test:26", ("next.test", 26)),
        ("[::1]:26", ("::1", 26)),
        ("[::1]", ("::1", 25)),
        ("::1", ("::1", 25)),
        ("::1 26", ("::1", 26)),
    ],
)
def test_place_is_read(tmp_path: Path, words: str, place: tuple[str, int]) -> None:
    (plugin,) = load(tmp_path, {"plugins": f"queue/smtp-forward {words}"}).plugins()

    assert (plugin._host, plugin._port) == place  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", ["", "next.test:smtp", "next.test:0", "next.test 0x"])
def test_place_that_is_none_is_an_error(tmp_path: Path, words: str) -> None:
    with pytest.raises(Exception, match=r"plugins:1: "):
        load(tmp_path, {"plugins": f"queue/smtp-forward {words}"})
