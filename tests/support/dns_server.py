"""An authoritative DNS server for tests, of dicts, that can be told to misbehave.

    with DnsServer({"2.0.0.127.list.test": {"A": ["127.0.0.2"]}}) as server:
        server.fail("slow.test", seconds=0.5)
        server.fail("*.dead.test", "silent")
        ...  # ask 127.0.0.1, port server.port
        assert ("slow.test", "A", "udp") in server.asked

Names are in lower case without the final dot.  What is listed nowhere is
NXDOMAIN with an SOA.  Everything may be changed while the server runs.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = dict[str, dict[str, list[str]]]
Send = Callable[[bytes], object]
Script = Callable[[bytes, str], list[bytes]]

KINDS = {
    "": "answer as usual, perhaps late",
    "silent": "no answer at all",
    "servfail": "SERVFAIL",
    "refused": "REFUSED",
    "formerr": "FORMERR to questions with EDNS, else as usual",
    "notimp": "NOTIMP to questions with EDNS, else as usual",
    "truncated": "cut over UDP, whole over TCP",
    "wrong id": "first an answer with another id, then the right one",
    "wrong question": "first an answer to another question, then the right one",
    "garbage": "the header and the question, then bytes without sense",
    "noise": "bytes without sense",
    "hang up": "as truncated, but the TCP connection is closed without an answer",
}
_RCODES = {
    "servfail": dns.rcode.SERVFAIL,
    "refused": dns.rcode.REFUSED,
    "formerr": dns.rcode.FORMERR,
    "notimp": dns.rcode.NOTIMP,
}
_FORGED = "127.66.66.66"  # what forged answers say, so that a test can tell


@dataclass
class Fault:
    """How a name misbehaves: one of KINDS, a delay, and how often (None: always)."""

    kind: str = ""
    seconds: float = 0.0
    times: int | None = None


@dataclass
class _Connection:
    sock: socket.socket
    received: bytes = b""


@dataclass(order=True)
class _Late:
    when: float
    number: int
    message: bytes = field(compare=False)
    send: Send = field(compare=False)


class DnsServer:
    """Serves `zones` over UDP and TCP on 127.0.0.1, from a thread of its own.

    `port` is known once it is started.  `ttl` is that of records, `soa_ttl`
    that of denials, in seconds; None leaves the SOA out.  `asked` lists
    (name, type, "udp" or "tcp") in order.  `script`, when set, takes over: it
    gets a question as received and returns the messages to send.
    """

    def __init__(
        self,
        zones: Records | None = None,
        *,
        port: int = 0,
        ttl: int = 300,
        soa_ttl: int | None = 300,
    ) -> None:
        self.zones: Records = {} if zones is None else zones
        self.faults: dict[str, Fault] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.sources: list[int] = []  # the client's UDP port of each question
        self.script: Script | None = None
        self.port = port
        self.ttl = ttl
        self.soa_ttl = soa_ttl
        self._late: list[_Late] = []
        self._numbers = itertools.count()
        self._stopping = False

    def __enter__(self) -> DnsServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def fail(
        self,
        name: str,
        kind: str = "",
        *,
        seconds: float = 0.0,
        times: int | None = None,
    ) -> None:
        """Make `name`, or all below "*.zone", misbehave as KINDS has it."""
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not one of {', '.join(KINDS)}")
        self.faults[name] = Fault(kind, seconds, times)

    def times_asked(self, name: str, rdtype: str = "A", transport: str = "udp") -> int:
        """Return how often a question came."""
        return self.asked.count((name, rdtype, transport))

    def start(self) -> None:
        """Open the sockets, then serve in the background."""
        self._udp, self._tcp = _open_pair(self.port)
        self.port = self._udp.getsockname()[1]
        self._wake, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for sock in (self._udp, self._tcp, self._wake):
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="dns-server")
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and close every socket."""
        self._stopping = True
        self._waker.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            connection = key.data
            (connection.sock if connection else key.fileobj).close()  # type: ignore[union-attr]
        self._waker.close()
        self._selector.close()
        self._late.clear()

    # What is answered

    def answer(self, request: bytes, transport: str) -> list[tuple[float, bytes]]:
        """Return the messages that answer `request`, each with its delay."""
        if self.script is not None:
            return [(0.0, message) for message in self.script(request, transport)]
        try:
            query = dns.message.from_wire(request)
        except dns.exception.DNSException:
            return []
        if not query.question:
            return []
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, rdtype, transport))
        fault = self._take_fault(name)
        reply = self._reply(query, name, rdtype).to_wire(max_size=65535)
        kind = fault.kind
        if transport == "udp" and len(reply) > max(query.payload, 512):
            kind = kind or "truncated"
        messages = _spoil(kind, query, reply, transport)
        return [(fault.seconds, message) for message in messages]

    def _take_fault(self, name: str) -> Fault:
        key = next((k for k in _candidates(name) if k in self.faults), None)
        if key is None:
            return Fault()
        fault = self.faults[key]
        if fault.times is not None:
            if fault.times <= 0:
                return Fault()
            fault.times -= 1
        return fault

    def _reply(
        self, query: dns.message.Message, name: str, rdtype: str
    ) -> dns.message.Message:
        reply = dns.message.make_response(query, recursion_available=True)
        for _ in range(8):
            records = self._find(name)
            if records is None:
                reply.set_rcode(dns.rcode.NXDOMAIN)
                break
            wanted = rdtype if rdtype in records else "CNAME"
            found = records.get(wanted)
            if not found:
                break
            rrset = dns.rrset.from_text(name + ".", self.ttl, "IN", wanted, *found)
            reply.answer.append(rrset)
            if wanted == rdtype:
                return reply
            name = found[0].rstrip(".").lower()
        if self.soa_ttl is not None:
            owner = name.partition(".")[2] + "."
            soa = f"ns.test. root.test. 1 3600 600 86400 {self.soa_ttl}"
            reply.authority.append(
                dns.rrset.from_text(owner, self.soa_ttl, "IN", "SOA", soa)
            )
        return reply

    def _find(self, name: str) -> dict[str, list[str]] | None:
        zones = self.zones
        for candidate in _candidates(name):
            if candidate in zones:
                return zones[candidate]
        # A name above a listed one exists, without records: RFC 8020
        return {} if any(key.endswith("." + name) for key in list(zones)) else None

    # The loop

    def _serve(self) -> None:
        while not self._stopping:
            timeout = None
            if self._late:
                timeout = max(0.0, self._late[0].when - time.monotonic())
            for key, _ in self._selector.select(timeout):
                if key.fileobj is self._udp:
                    self._read_udp()
                elif key.fileobj is self._tcp:
                    self._accept()
                elif key.data is not None:
                    self._read_tcp(key.data)
            while self._late and self._late[0].when <= time.monotonic():
                late = heapq.heappop(self._late)
                _try_to(late.send, late.message)

    def _respond(self, request: bytes, transport: str, send: Send) -> None:
        for seconds, message in self.answer(request, transport):
            if seconds:
                when = time.monotonic() + seconds
                late = _Late(when, next(self._numbers), message, send)
                heapq.heappush(self._late, late)
            else:
                _try_to(send, message)

    def _read_udp(self) -> None:
        try:
            request, client = self._udp.recvfrom(65535)
        except OSError:
            return  # an ICMP error for a client that has gone
        self.sources.append(client[1])
        self._respond(request, "udp", lambda message: self._udp.sendto(message, client))

    def _accept(self) -> None:
        try:
            sock, _ = self._tcp.accept()
        except OSError:
            return
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, _Connection(sock))

    def _read_tcp(self, connection: _Connection) -> None:
        try:
            chunk = connection.sock.recv(65535)
        except OSError:
            chunk = b""
        connection.received += chunk
        while len(connection.received) >= 2:
            end = 2 + int.from_bytes(connection.received[:2], "big")
            if len(connection.received) < end:
                break
            request = connection.received[2:end]
            connection.received = connection.received[end:]
            self._respond(request, "tcp", _framed(connection.sock))
        if not chunk:
            self._selector.unregister(connection.sock)
            connection.sock.close()


def _open_pair(port: int) -> tuple[socket.socket, socket.socket]:
    """Open UDP and TCP on one port; a port free for one may be taken for the other."""
    for attempt in itertools.count(1):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(("127.0.0.1", port))
            tcp.listen()
            udp.bind(tcp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            if port or attempt == 20:
                raise
        else:
            return udp, tcp
    raise AssertionError("unreachable")


def _candidates(name: str) -> list[str]:
    """The name itself, then the wildcards that cover it, the nearest first."""
    labels = name.split(".")
    covering = [f"*.{'.'.join(labels[n:])}" for n in range(1, len(labels))]
    return [name, *covering, "*"]


def _framed(sock: socket.socket) -> Send:
    def send(message: bytes) -> None:
        if message:
            sock.sendall(len(message).to_bytes(2, "big") + message)
        else:
            sock.shutdown(socket.SHUT_RDWR)

    return send


def _try_to(send: Send, message: bytes) -> None:
    try:
        send(message)
    except OSError:
        pass  # the client has gone


def _spoil(
    kind: str, query: dns.message.Message, reply: bytes, transport: str
) -> list[bytes]:
    if kind in _RCODES:
        if kind in ("formerr", "notimp") and query.edns < 0:
            return [reply]
        refusal = dns.message.make_response(query, recursion_available=True)
        refusal.set_rcode(_RCODES[kind])
        return [refusal.to_wire()]
    if kind == "silent":
        return []
    if kind in ("truncated", "hang up"):
        if transport == "tcp":
            return [reply if kind == "truncated" else b""]
        cut = dns.message.make_response(query, recursion_available=True)
        cut.flags |= dns.flags.TC
        return [cut.to_wire()]
    if kind == "wrong id":
        return [_forge(query, query.id ^ 1, query.question[0].name), reply]
    if kind == "wrong question":
        other = dns.name.from_text("forged.test")
        return [_forge(query, query.id, other), reply]
    if kind == "garbage":
        end = 12 + len(query.question[0].name.to_wire() or b"") + 4
        header = reply[:4] + b"\0\1\0\5\0\5\0\5"
        return [header + reply[12:end] + b"\xc0\x0c\xff" * 9]
    if kind == "noise":
        return [b"", reply[:1], reply[:11], b"\xff" * 40]
    return [reply]


def _forge(query: dns.message.Message, ident: int, name: dns.name.Name) -> bytes:
    forged = dns.message.make_query(name, query.question[0].rdtype, id=ident)
    reply = dns.message.make_response(forged)
    if query.question[0].rdtype == dns.rdatatype.A:
        reply.answer.append(dns.rrset.from_text(name, 300, "IN", "A", _FORGED))
    return reply.to_wire()
