"""The metrics in Prometheus' text format, over HTTP on a port of this machine alone.

The master serves it in its own loop: a request is short, an answer is made at once, and
nobody is waited for.  A client that is slow is hung up.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smeconf.smtpd import stats as names
from smeconf.smtpd.config import ConfigError, Directory, whole_number

if TYPE_CHECKING:
    from smeconf.smtpd.stats import Stats
    from smeconf.smtpd.vitals import Vitals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CLIENT_SECONDS = 2.0
_HOST = "127.0.0.1"
_MAX_CLIENTS = 16
_MAX_REQUEST_BYTES = 8192


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """``port`` is where metrics can be read, 0 for nowhere."""

    port: int = 0

    @classmethod
    def read(cls, directory: Directory) -> MetricsSettings:
        """Read ``metrics``.  Raises ConfigError naming the line."""
        return cls(directory.first("metrics", _port, 0))


def _port(text: str) -> int:
    number = whole_number(text)
    if number > 65535:
        raise ValueError(f"{text} is no port")
    return number


def open_metrics(port: int) -> socket.socket:
    """Return the listening socket.  Raises ConfigError naming port and property."""
    try:
        return socket.create_server((_HOST, port))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ConfigError(
            f"cannot serve metrics on {_HOST}:{port}: {why}: see MetricsPort"
        ) from error


class _Client:
    """A request that is being read, or an answer that is being written."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.request = b""
        self.answer = memoryview(b"")
        self.deadline = time.monotonic() + CLIENT_SECONDS


class MetricsServer:
    """Serves what ``render`` returns, on the loop of ``selector``.

    The loop calls the ``data`` of what is ready with its file object, and ``tick`` when
    ``deadline`` has come.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        render: Callable[[], str],
    ) -> None:
        self._selector = selector
        self._listener = listener
        self._render = render
        self._clients: dict[socket.socket, _Client] = {}
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, self._accept)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def deadline(self) -> float | None:
        """When the next slow client is hung up, by the monotonic clock."""
        return min((one.deadline for one in self._clients.values()), default=None)

    def tick(self) -> None:
        """Hang up clients that are too slow."""
        now = time.monotonic()
        for client in [one for one in self._clients.values() if one.deadline <= now]:
            self._drop(client)

    def close(self) -> None:
        """Serve no more."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.unregister(self._listener)
        self._listener.close()

    def close_in_worker(self) -> None:
        """Let go of the sockets in a process that is not the server's."""
        for sock in (self._listener, *self._clients):
            sock.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return  # it is gone already
        sock.setblocking(False)
        if len(self._clients) >= _MAX_CLIENTS:
            self._drop(next(iter(self._clients.values())))  # the oldest
        self._clients[sock] = _Client(sock)
        self._selector.register(sock, selectors.EVENT_READ, self._read)

    def _read(self, sock: socket.socket) -> None:
        client = self._clients.get(sock)
        if client is None:
            return  # dropped by an event of the same turn
        try:
            piece = sock.recv(_MAX_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._drop(client)
            return
        client.request += piece
        head = client.request.replace(b"\r\n", b"\n")
        if b"\n\n" in head or len(client.request) > _MAX_REQUEST_BYTES:
            client.answer = memoryview(self._answer(head))
            self._selector.modify(sock, selectors.EVENT_WRITE, self._write)
            self._write(sock)

    def _write(self, sock: socket.socket) -> None:
        client = self._clients.get(sock)
        if client is None:
            return
        try:
            client.answer = client.answer[sock.send(client.answer) :]
        except BlockingIOError:
            return
        except OSError:
            client.answer = memoryview(b"")
        if not client.answer:
            self._drop(client)

    def _answer(self, head: bytes) -> bytes:
        words = head.partition(b"\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/") or b"\n\n" not in head:
            return _response("400 Bad Request", "This is no request of HTTP\n")
        method, path = words[0], words[1].partition(b"?")[0]
        if path != b"/metrics":
            return _response("404 Not Found", "There is only /metrics\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "Only GET\n")
        return _response("200 OK", self._render(), has_body=method == b"GET")

    def _drop(self, client: _Client) -> None:
        del self._clients[client.sock]
        self._selector.unregister(client.sock)
        client.sock.close()


def _response(status: str, text: str, *, has_body: bool = True) -> bytes:
    kind = CONTENT_TYPE if status.startswith("200") else "text/plain; charset=utf-8"
    body = text.encode()
    head = (
        f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if has_body else b"")


def render(vitals: Vitals, stats: Stats, generation: int) -> str:
    """Return all metrics as text."""
    return "".join(f"{line}\n" for line in _lines(vitals, stats, generation))


def _lines(vitals: Vitals, stats: Stats, generation: int) -> Iterator[str]:
    counts = stats.totals()
    yield from _metric("up_seconds", "gauge", "For how long the filter runs.")
    yield _sample("up_seconds", round(vitals.up_seconds, 1))
    yield from _metric("generation", "gauge", "Configurations served since then.")
    yield _sample("generation", generation)
    yield from _metric("sessions", "gauge", "Clients that are connected.")
    yield _sample("sessions", vitals.sessions)
    yield from _workers(vitals)
    for name, text in _COUNTERS.items():
        yield from _metric(f"{name}_total", "counter", text)
        yield _sample(f"{name}_total", counts[name])
    yield from _metric("refusals_total", "counter", "Refusals, by hook.")
    yield from _labelled("refusals_total", counts, names.REFUSED, "hook")
    yield from _metric("replies_total", "counter", "Replies, by their first digit.")
    yield from _labelled("replies_total", counts, names.REPLIES, "class")
    yield from _verdicts(stats)


_COUNTERS = {
    names.CONNECTIONS: "Connections, those that were refused among them.",
    names.CONNECTIONS_REFUSED: "Connections over a limit.",
    names.MESSAGES: "Messages that were taken.",
    names.MESSAGE_BYTES: "Their size.",
}


def _workers(vitals: Vitals) -> Iterator[str]:
    workers = vitals.workers()
    yield from _metric("worker_sessions", "gauge", "Clients of each worker.")
    for one in workers:
        labels = {"pid": str(one.pid), "generation": str(one.generation)}
        yield _sample("worker_sessions", one.sessions, labels)
    yield from _metric("worker_memory_bytes", "gauge", "Memory of each worker.")
    for one in workers:
        labels = {"pid": str(one.pid), "kind": one.memory_kind}
        yield _sample("worker_memory_bytes", one.memory_bytes, labels)


def _verdicts(stats: Stats) -> Iterator[str]:
    found = list(stats.verdicts())
    yield from _metric("verdicts_total", "counter", "Verdicts, by plugin and hook.")
    for one in found:
        labels = {"plugin": one.plugin, "hook": one.hook, "verdict": one.verdict}
        yield _sample("verdicts_total", one.times, labels)
    yield from _metric("verdict_seconds_total", "counter", "The time they took.")
    for one in found:
        labels = {"plugin": one.plugin, "hook": one.hook, "verdict": one.verdict}
        yield _sample("verdict_seconds_total", round(one.seconds, 6), labels)


def _labelled(
    metric: str, counts: dict[str, int], prefix: str, label: str
) -> Iterator[str]:
    for name, number in counts.items():
        if name.startswith(prefix):
            yield _sample(metric, number, {label: name.removeprefix(prefix)})


def _metric(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP smeconf_{name} {text}"
    yield f"# TYPE smeconf_{name} {kind}"


def _sample(name: str, value: float, labels: dict[str, str] | None = None) -> str:
    inside = ",".join(
        f'{label}="{_escaped(text)}"' for label, text in (labels or {}).items()
    )
    return (
        f"smeconf_{name}{{{inside}}} {value}" if inside else f"smeconf_{name} {value}"
    )


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return text.replace("\n", "\\n")
