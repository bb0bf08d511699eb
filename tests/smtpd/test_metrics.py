"""Metrics over HTTP, served by a loop that waits for nobody."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smeconf.smtpd import metrics
from smeconf.smtpd.config import ConfigError, Directory
from smeconf.smtpd.hooks import Verdict
from smeconf.smtpd.metrics import MetricsServer, MetricsSettings, open_metrics, render
from smeconf.smtpd.stats import MESSAGE_BYTES, MESSAGES
from smeconf.smtpd.vitals import Vitals
from smeconf.smtpd.workforce import Workforce
from tests.support.smtp import SECONDS, Filter, free_port, write_directory

SAMPLE = re.compile(
    r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\.)*"(,[a-z]+="(?:[^"\\\n]|\\.)*")*\})? [0-9.e+-]+'
)


class Loop:
    """A loop as the master has it, in a thread of its own."""

    def __init__(self, text: str = "smeconf_x 1\n") -> None:
        self._selector = selectors.DefaultSelector()
        self.server = MetricsServer(self._selector, open_metrics(0), lambda: text)
        ours, self._stop = socket.socketpair()
        self._ours = ours
        self._selector.register(ours, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(0.05):
                if key.data is None:
                    return
                key.data(key.fileobj)
            self.server.tick()

    def end(self) -> None:
        self._stop.close()
        self._thread.join(SECONDS)
        self.server.close()
        self._ours.close()
        self._selector.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), SECONDS)

    def ask(self, request: bytes) -> str:
        with self.connect() as client:
            client.sendall(request)
            return read_all(client)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.end()


def read_all(client: socket.socket) -> str:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            answer += piece
    return answer.decode()


def test_metrics_are_got_over_http(loop: Loop) -> None:
    answer = loop.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")

    head, _, body = answer.partition("\r\n\r\n")
    assert head.split("\r\n") == [
        "HTTP/1.0 200 OK",
        "Content-Type: text/plain; version=0.0.4; charset=utf-8",
        "Content-Length: 12",
        "Connection: close",
    ]
    assert body == "smeconf_x 1\n"


def test_request_may_come_in_pieces(loop: Loop) -> None:
    with loop.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for letter in b"GET /metrics HTTP/1.0\r\n\r\n":
            client.sendall(bytes([letter]))

        assert read_all(client).startswith("HTTP/1.0 200")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD /metrics HTTP/1.0\r\n\r\n", "200 OK"),
        (b"GET /metrics?x=1 HTTP/1.0\n\n", "200 OK"),
        (b"GET / HTTP/1.0\r\n\r\n", "404 Not Found"),
        (b"GET /../../etc/passwd HTTP/1.0\r\n\r\n", "404 Not Found"),
        (b"POST /metrics HTTP/1.0\r\n\r\n", "405 Method Not Allowed"),
        (b"EHLO client.test\r\n\r\n", "400 Bad Request"),
        (b"\r\n\r\n", "400 Bad Request"),
        (b"\xff\0 \0 \0\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics HTTP/1.0\r\n" + b"x" * 9000, "400 Bad Request"),
    ],
)
def test_anything_else_is_refused(loop: Loop, request_: bytes, status: str) -> None:
    answer = loop.ask(request_)

    assert answer.startswith(f"HTTP/1.0 {status}\r\n")
    assert answer.endswith("\r\n\r\n") == request_.startswith(b"HEAD")


def test_slow_client_is_hung_up(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CLIENT_SECONDS", 0.2)
    with loop.connect() as slow:
        slow.sendall(b"GET /metr")

        assert read_all(slow) == ""


def test_client_that_does_not_read_is_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CLIENT_SECONDS", 0.2)
    loop = Loop("x" * 20_000_000)
    try:
        with loop.connect() as deaf, loop.connect() as client:
            deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")

            assert read_all(client).startswith("HTTP/1.0 404")
            while loop.server.deadline is not None:
                threading.Event().wait(0.01)
            assert len(read_all(deaf)) < 20_000_000
    finally:
        loop.end()


def test_silent_clients_do_not_keep_others_out(loop: Loop) -> None:
    silent = [loop.connect() for _ in range(40)]

    answer = loop.ask(b"GET /metrics HTTP/1.0\r\n\r\n")

    assert answer.startswith("HTTP/1.0 200")
    for client in silent:
        client.close()


def test_only_this_machine_can_ask(loop: Loop) -> None:
    with loop.connect() as client:
        assert client.getpeername()[0] == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", loop.server.port), SECONDS)


# The text


def test_text_is_in_prometheus_format() -> None:
    force = Workforce(lambda listeners: None)
    force.stats.count(MESSAGES, 3)
    force.stats.count(MESSAGE_BYTES, 4500)
    force.stats.plugin("dnsbl", "connect", Verdict.DENY, 0.25)
    force.stats.plugin('odd"\\name', "rcpt", Verdict.OK, 0.5)

    text = render(Vitals(force), force.stats, 7)

    assert "smeconf_generation 7\n" in text
    assert "smeconf_messages_total 3\n" in text
    assert "smeconf_message_bytes_total 4500\n" in text
    labels = '{plugin="dnsbl",hook="connect",verdict="DENY"}'
    assert f"smeconf_verdicts_total{labels} 1\n" in text
    assert f"smeconf_verdict_seconds_total{labels} 0.25\n" in text
    assert r'{plugin="odd\"\\name",hook="rcpt",verdict="OK"} 1' in text
    told = set()
    for line in text.splitlines():
        if line.startswith("# "):
            told.add(line.split()[2])
        else:
            assert SAMPLE.fullmatch(line), line
            assert line.partition(" ")[0].partition("{")[0] in told, line
    assert len(text.splitlines()) == len(set(text.splitlines()))


# The file


def test_port_is_read_and_none_is_none(tmp_path: Path) -> None:
    assert MetricsSettings.read(Directory(str(tmp_path))).port == 0
    write_directory(tmp_path, {"metrics": "9101"})
    assert MetricsSettings.read(Directory(str(tmp_path))).port == 9101
    write_directory(tmp_path, {"metrics": "70000"})
    with pytest.raises(ConfigError, match="metrics:1: 70000 is no port"):
        MetricsSettings.read(Directory(str(tmp_path)))


# The whole filter


def scrape(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return read_all(client)


def test_filter_serves_metrics_and_moves_them_on_reload(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    with Filter(tmp_path, {"metrics": str(port)}) as filter:
        assert "smeconf_generation 1\n" in scrape(port)

        filter.write({"metrics": str(other)})
        assert filter.control("reload")["ok"]

        assert "smeconf_generation 2\n" in scrape(other)
        with pytest.raises(ConnectionRefusedError):
            scrape(port)
        filter.write({})
        assert filter.control("reload")["ok"]
        with pytest.raises(ConnectionRefusedError):
            scrape(other)


def test_port_that_is_taken_is_a_warning_at_start_and_refuses_a_reload(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Filter(tmp_path, {"metrics": str(port)}) as filter:
            why = (
                f"cannot serve metrics on 127.0.0.1:{port}: "
                "Address already in use: see MetricsPort"
            )
            filter.wait_for(f"warning: {why}")
            assert filter.connect().read().startswith("220")

            assert filter.control("reload")["error"] == why
            assert filter.connect().read().startswith("220")
