"""A DNS stub resolver on the running asyncio loop.

A stub resolver asks the recursive servers of the site and believes them; all
it can do against forged answers is to be hard to guess (RFC 5452): every
question leaves from one of several random ports that are renewed, under a
random id, and an answer counts only when port, id and question all agree.

A question ends in one of three ways, and the third is not the second::

    zone = Zone.of("zen.example.org")
    client = ipaddress.ip_address("192.0.2.99")
    question = zone.question(reversed_address(client), "A")
    answer = await resolver.ask(question, 4.0)

    Status.FOUND   99.2.0.192.zen.example.org has records: answer.addresses
    Status.NONE    the servers said that there is no such name or record
    Status.FAILED  nobody said anything that can be relied on: answer.why

Names and records are dnspython's work.  The sockets, and the answers that say
"no", are done here by hand, since most questions about a client get that
answer and a message asks dozens of them.

Not done here: DNSSEC, search lists, iteration from the root, zone transfers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import errno
import functools
import ipaddress
import os
import re
import socket
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Sequence

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype

QUESTIONS_PER_PORT = 200
PORT_SECONDS = 60.0
PAYLOAD_BYTES = 1232  # what passes everywhere unfragmented: dnsflagday.net/2020
POSITIVE_TTL_SECONDS = 86400
NEGATIVE_TTL_SECONDS = 10800  # RFC 2308, 5: one to three hours work well

_NXDOMAIN, _FORMERR, _NOTIMP = 3, 1, 4
_NS, _SOA, _OPT = 2, 6, 41
_ASK_PLAIN = bytes.fromhex("0100 0001 0000 0000 0000")  # RD, one question
_ASK_EDNS = bytes.fromhex("0100 0001 0000 0000 0001")
_OPT_RECORD = struct.pack("!BHHIH", 0, _OPT, PAYLOAD_BYTES, 0, 0)  # RFC 6891, 6.1.2
_RECORD = struct.Struct("!HHIH")  # what follows the owner's name: RFC 1035, 3.2.1
_ENDED = -1.0  # in place of the time at which a lookup is due
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)


class Status(enum.Enum):
    """How a question ended."""

    FOUND = "found"
    NONE = "none"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question.

    `records` holds only records of the type asked for, at the end of the CNAME
    chain; it is empty unless `status` is FOUND.  `why` is a few words for the
    log: "NXDOMAIN", "SERVFAIL from 127.0.0.1@53", "no answer in 4.0 s".
    """

    status: Status
    records: tuple[dns.rdata.Rdata, ...]
    why: str

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of A and AAAA records, as text."""
        wanted = (dns.rdatatype.A, dns.rdatatype.AAAA)
        return tuple(r.to_text() for r in self.records if r.rdtype in wanted)

    @property
    def texts(self) -> tuple[bytes, ...]:
        """One value for each TXT record, its strings joined (RFC 7208, 3.3)."""
        found = (getattr(record, "strings", None) for record in self.records)
        return tuple(b"".join(strings) for strings in found if strings is not None)


_NO_NAME = Answer(Status.NONE, (), "NXDOMAIN")
_NO_DATA = Answer(Status.NONE, (), "no data")


def _failed(why: str) -> Answer:
    return Answer(Status.FAILED, (), why)


class Question:
    """A name and a type of record, ready to be sent.

    Questions are equal when their types are, and their names but for case.
    """

    __slots__ = ("key", "section")

    def __init__(self, name: bytes, rdtype: str) -> None:
        """Take a `name` already in wire format; see `of` and `Zone.question`."""
        ending = _type_and_class(rdtype)
        # A length byte is at most 63, below "A": lower() leaves it alone.
        self.key = name.lower() + ending
        self.section = name + ending

    @classmethod
    def of(cls, name: str, rdtype: str) -> Question:
        """Return the question for the records of a type ("A", "TXT") of `name`.

        Raises ValueError, in one line, for what cannot be a name (RFC 1035,
        3.1) or is no type of record.  Other letters than ASCII are written as
        IDNA has them (RFC 5890, 2.3.2.1).
        """
        try:
            return cls(dns.name.from_text(name).to_wire() or b"", rdtype)
        except (dns.exception.DNSException, UnicodeError) as error:
            raise ValueError(f"{name!r} is not a domain name: {error}") from None

    @property
    def name(self) -> str:
        """The name as text, without the final dot."""
        return dns.name.from_wire(self.section, 0)[0].to_text(omit_final_dot=True)

    @property
    def rdtype(self) -> str:
        """The type of record: "A", "TXT"."""
        code = int.from_bytes(self.section[-4:-2], "big")
        return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(code))

    def is_answered_by(self, message: bytes) -> bool:
        """Tell whether `message` is a response to this very question.

        Says nothing of the id, which belongs to one sending (RFC 5452, 9.1).
        """
        section = message[12 : 12 + len(self.section)]
        # A server may write the name in another case: RFC 4343, 3.
        if section != self.section and section[:-4].lower() + section[-4:] != self.key:
            return False
        # One question; a response, opcode QUERY: RFC 1035, 4.1.1
        return message[4:6] == b"\0\1" and message[2] & 0xF8 == 0x80

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Question) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Question({self.name!r}, {self.rdtype!r})"


@functools.lru_cache(maxsize=256)
def _type_and_class(rdtype: str) -> bytes:
    try:
        code = dns.rdatatype.from_text(rdtype)
    except (dns.exception.DNSException, ValueError):
        raise ValueError(f"{rdtype!r} is not a type of record") from None
    if dns.rdatatype.is_metatype(code):
        raise ValueError(f"{rdtype!r} cannot be asked for")
    return struct.pack("!HH", code, dns.rdataclass.IN)


@functools.lru_cache(maxsize=1024)  # the octets and nibbles of addresses, above all
def _label(text: str) -> bytes:
    if not (text.isascii() and 0 < len(text) < 64 and "." not in text):
        raise ValueError(f"{text!r} is not a label of a domain name")
    return bytes((len(text),)) + text.encode("ascii")


class Zone:
    """A zone in which names are looked up, such as a DNS list (RFC 5782)."""

    __slots__ = ("name", "wire")

    def __init__(self, name: str, wire: bytes) -> None:
        """Take a checked `name` and its `wire` format; see `of`."""
        self.name = name
        self.wire = wire

    @classmethod
    def of(cls, name: str) -> Zone:
        """Return the zone called `name`.

        Raises ValueError, in one line that names the zone, unless it is a host
        name of two labels or more.  RFC 1123, 2.1; underscores are allowed.
        """
        plain = name.removesuffix(".")
        labels = plain.split(".")
        if len(plain) > 253 or len(labels) < 2:
            raise ValueError(f"{name!r} is not a zone: not a full host name")
        for label in labels:
            if not _HOST_LABEL.fullmatch(label):
                raise ValueError(f"{name!r} is not a zone: bad label {label!r}")
        return cls(plain, b"".join(map(_label, labels)) + b"\0")

    def question(self, labels: Sequence[str], rdtype: str) -> Question:
        """Return the question for `labels`, put before the name of the zone.

        Raises ValueError, in one line, when a label is empty, longer than 63
        bytes, not ASCII or has a dot in it, and when the whole is longer than
        255 bytes (RFC 1035, 3.1): `labels` may come from a stranger.
        """
        name = b"".join(map(_label, labels)) + self.wire
        if len(name) > 255:
            raise ValueError(f"{'.'.join(labels)!r} is too long for {self.name}")
        return Question(name, rdtype)

    def __repr__(self) -> str:
        return f"Zone({self.name!r})"


def reversed_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> tuple[str, ...]:
    """Return the labels under which lists keep `address` (RFC 5782, 2.1 and 2.4).

    Four octets or 32 nibbles, the last first.  An IPv4 address mapped into
    IPv6 is the IPv4 address it stands for.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return tuple(address.packed.hex()[::-1])
        address = address.ipv4_mapped
    return tuple(map(str, address.packed[::-1]))


def parse_servers(entries: Sequence[str]) -> list[tuple[str, int]]:
    """Return (address, port) for each entry, written `ip` or `ip@port`.

    Raises ValueError, in one line that names the entry, when one is neither.
    """
    servers = []
    for entry in entries:
        host, at, port = entry.strip().partition("@")
        try:
            number = int(port) if at and port.isdecimal() else 0 if at else 53
            if not 0 < number < 65536:
                raise ValueError(f"{port!r} is not a port")
            servers.append((str(ipaddress.ip_address(host)), number))
        except ValueError as error:
            raise ValueError(f"{entry!r} is not a DNS server: {error}") from None
    return servers


def system_servers() -> list[tuple[str, int]]:
    """Return (address, port) of the servers in /etc/resolv.conf, else 127.0.0.1."""
    import dns.resolver  # slow to import, and used only here

    found = dns.resolver.Resolver(configure=False)
    try:
        found.read_resolv_conf("/etc/resolv.conf")
    except (OSError, dns.exception.DNSException):
        pass  # a machine without one has its own server, or none at all
    return [(str(ip), 53) for ip in found.nameservers] or [("127.0.0.1", 53)]


def read_answer(question: Question, message: bytes) -> tuple[Answer, int]:
    """Return the answer in a response to `question`, and for how many seconds it holds.

    The response code must be NOERROR or NXDOMAIN.  Never raises: what cannot
    be read is FAILED.  Zero seconds means that it must not be kept.
    """
    try:
        if message[6:8] == b"\0\0":
            return _read_denial(question, message)
        return _read_records(question, message)
    except Exception as error:
        # A stranger wrote this message; no parser is trusted to foresee it all.
        return _failed(f"malformed answer ({type(error).__name__})"), 0


def _read_denial(question: Question, message: bytes) -> tuple[Answer, int]:
    seconds, is_referral = _walk_authority(question, message)
    if message[3] & 15 == _NXDOMAIN:
        return _NO_NAME, seconds
    if is_referral:
        # The server does not know and says who might: RFC 2308, 2.2
        return _failed("referral in place of an answer"), 0
    return _NO_DATA, seconds


def _read_records(question: Question, message: bytes) -> tuple[Answer, int]:
    parsed = dns.message.from_wire(message, ignore_trailing=True)
    if parsed.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return _failed(dns.rcode.to_text(parsed.rcode())), 0
    assert isinstance(parsed, dns.message.QueryMessage)  # the opcode was checked
    chain = parsed.resolve_chaining()
    if chain.answer is not None:
        seconds = min(chain.minimum_ttl, POSITIVE_TTL_SECONDS)
        return Answer(Status.FOUND, tuple(chain.answer), "NOERROR"), seconds
    if not chain.cnames:
        return _failed("records of another name or type"), 0
    denial = _NO_DATA if parsed.rcode() == dns.rcode.NOERROR else _NO_NAME
    seconds, _ = _walk_authority(question, message)
    return denial, min(seconds, chain.minimum_ttl)


def _walk_authority(question: Question, message: bytes) -> tuple[int, bool]:
    """Return how long a denial holds (RFC 2308, 5) and whether it is a referral.

    Raises ValueError, IndexError or struct.error for what is cut or crooked.
    Names are stepped over, pointers not followed: there is nothing to loop in.
    """
    answers, authorities, others = struct.unpack_from("!HHH", message, 6)
    seconds, has_soa, has_ns = 0, False, False
    at = 12 + len(question.section)
    for number in range(answers + authorities + others):
        while length := message[at]:
            if length >= 0xC0:  # a pointer ends the name: RFC 1035, 4.1.4
                at += 1
                break
            if length > 63:
                raise ValueError("bad label")
            at += length + 1
        rdtype, _, ttl, size = _RECORD.unpack_from(message, at + 1)
        at += 11 + size
        if at > len(message):
            raise ValueError("record is cut")
        if rdtype == _OPT and ttl >> 24:
            raise ValueError("extended error")  # RFC 6891, 6.1.3
        if answers <= number < answers + authorities:
            has_ns = has_ns or rdtype == _NS
            if rdtype == _SOA and size >= 22:
                has_soa = True
                ttl = min(ttl, int.from_bytes(message[at - 4 : at], "big"))
                # The top bit makes it zero: RFC 2181, 8
                seconds = 0 if ttl >> 31 else min(ttl, NEGATIVE_TTL_SECONDS)
    return seconds, has_ns and not has_soa


class _Server:
    """A recursive server, and the ports it is asked from."""

    __slots__ = ("address", "bit", "family", "next", "ports", "text")

    def __init__(self, number: int, ip: str, port: int, size: int) -> None:
        self.bit = 1 << number
        self.next = self
        self.address = (ip, port)
        self.family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self.text = f"{ip}@{port}"
        self.ports: list[_Port | None] = [None] * size


class _Port:
    """One UDP socket, with the questions that wait for an answer on it."""

    __slots__ = ("asked", "outstanding", "retire_at", "server", "sock")

    def __init__(self, server: _Server, retire_at: float) -> None:
        self.server = server
        self.retire_at = retire_at
        self.asked = 0
        self.outstanding: dict[bytes, _Lookup] = {}
        self.sock = socket.socket(server.family, socket.SOCK_DGRAM)
        try:
            self.sock.setblocking(False)
            # The kernel chooses a random port, and drops what others send to it.
            self.sock.connect(server.address)
        except OSError:
            self.sock.close()
            raise


class _Group:
    """The questions that one caller waits for."""

    __slots__ = ("answers", "done", "left")

    def __init__(
        self, answers: list[Answer | None], left: int, done: asyncio.Future[None]
    ) -> None:
        self.answers = answers
        self.left = left
        self.done = done

    def put(self, place: int, answer: Answer) -> None:
        self.answers[place] = answer
        self.left -= 1
        if self.left == 0:
            self.stop()

    def stop(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class _Lookup:
    """A question on its way, for all who wait for it."""

    __slots__ = (
        "due",
        "edns",
        "last",
        "question",
        "sent",
        "streams",
        "tried",
        "waiters",
    )

    def __init__(self, question: Question, server: _Server) -> None:
        self.question = question
        self.waiters: list[tuple[_Group, int]] = []
        self.sent: list[tuple[_Port, bytes]] = []
        self.last = server  # who was asked last
        self.tried = 0  # one bit for each server that was asked
        self.streams: dict[_Server, asyncio.Task[None]] = {}
        self.edns = True
        self.due = 0.0  # when to ask again, or _ENDED

    def message(self, ident: bytes) -> bytes:
        if self.edns:
            return ident + _ASK_EDNS + self.question.section + _OPT_RECORD
        return ident + _ASK_PLAIN + self.question.section


class Resolver:
    """Asks recursive servers, keeps answers for their TTL, shares what is under way.

    Belongs to the loop that runs when the first question is asked.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        *,
        attempt_seconds: float = 1.0,
        cache_size: int = 20000,
        sockets_per_server: int = 4,
    ) -> None:
        """Take the (address, port) of each server, in the order they are asked.

        A question without an answer after `attempt_seconds` is asked again, of
        the next server.  At most `cache_size` answers are kept.  Nothing is
        opened yet.  Raises ValueError when there is no server.
        """
        if not servers:
            raise ValueError("no DNS server to ask")
        self.ignored = 0  # datagrams that answered nothing that was asked
        self._servers = [
            _Server(number, ip, port, sockets_per_server)
            for number, (ip, port) in enumerate(servers)
        ]
        for server, following in zip(self._servers, self._servers[1:], strict=False):
            server.next = following
        self._servers[-1].next = self._servers[0]
        self._attempt_seconds = attempt_seconds
        self._cache_size = cache_size
        self._cache: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()
        self._lookups: dict[bytes, _Lookup] = {}
        # Attempts last equally long, so the oldest is due first: one timer does.
        self._attempts: deque[tuple[float, _Lookup]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._retired: set[_Port] = set()
        self._random = b""
        self._random_at = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock = time.monotonic
        self._is_closed = False

    def find_cached(self, question: Question) -> Answer | None:
        """Return the answer to `question` if it is known and still holds."""
        kept = self._cache.get(question.key)
        if kept is None:
            return None
        if kept[0] > self._clock():
            return kept[1]
        del self._cache[question.key]
        return None

    async def ask(self, question: Question, seconds: float) -> Answer:
        """Return the answer to `question`, FAILED when `seconds` have passed.

        Raises nothing for trouble of the network.  A cached answer is returned
        without suspending.
        """
        return (await self.ask_all((question,), seconds))[0]

    async def ask_all(
        self, questions: Sequence[Question], seconds: float
    ) -> list[Answer]:
        """Ask all `questions` at once and return their answers, in their order.

        All share one budget of `seconds`; what is not answered by then is
        FAILED.  Raises nothing for trouble of the network.  Returns without
        suspending when all answers are cached.
        """
        answers = [self.find_cached(question) for question in questions]
        places = [place for place, answer in enumerate(answers) if answer is None]
        if places:
            await self._fill(answers, questions, places, seconds)
        return [answer for answer in answers if answer is not None]

    async def _fill(
        self,
        answers: list[Answer | None],
        questions: Sequence[Question],
        places: list[int],
        seconds: float,
    ) -> None:
        if self._is_closed or seconds <= 0:
            why = "resolver is closed" if self._is_closed else "no time left"
            for place in places:
                answers[place] = _failed(why)
            return
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
            self._clock = loop.time
        group = _Group(answers, len(places), loop.create_future())
        lookups = [self._join(questions[place], group, place) for place in places]
        timer = loop.call_later(seconds, group.stop)
        try:
            await group.done
        finally:
            # Here too when the caller is cancelled.
            timer.cancel()
            if group.left:
                for place, lookup in zip(places, lookups, strict=True):
                    if answers[place] is None:
                        answers[place] = _failed(f"no answer in {seconds:.1f} s")
                        self._leave(lookup, group, place)

    def close(self) -> None:
        """Close all sockets; what is under way has FAILED, and what is asked later."""
        self._is_closed = True
        if self._loop is None or self._loop.is_closed():
            self._lookups.clear()
        for lookup in list(self._lookups.values()):
            self._finish(lookup, _failed("resolver is closed"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._attempts.clear()
        for server in self._servers:
            self._retired.update(port for port in server.ports if port is not None)
            server.ports = [None] * len(server.ports)
        while self._retired:
            self._close_port(self._retired.pop())

    # The life of a lookup

    def _join(self, question: Question, group: _Group, place: int) -> _Lookup:
        lookup = self._lookups.get(question.key)
        if lookup is not None:
            lookup.waiters.append((group, place))
            return lookup
        first = self._servers[0]
        lookup = self._lookups[question.key] = _Lookup(question, first)
        lookup.waiters.append((group, place))
        self._send(lookup, first)
        return lookup

    def _leave(self, lookup: _Lookup, group: _Group, place: int) -> None:
        lookup.waiters.remove((group, place))
        if not lookup.waiters:
            self._finish(lookup, _failed("nobody waits"))

    def _finish(self, lookup: _Lookup, answer: Answer, seconds: int = 0) -> None:
        key = lookup.question.key
        self._lookups.pop(key, None)
        lookup.due = _ENDED
        attempts = self._attempts
        while attempts and attempts[0][1].due == _ENDED:
            attempts.popleft()
        for port, ident in lookup.sent:
            self._forget(port, ident)
        for task in lookup.streams.values():
            task.cancel()
        if seconds > 0 and self._cache_size > 0:
            if len(self._cache) >= self._cache_size:
                self._cache.popitem(last=False)
            self._cache[key] = (self._clock() + seconds, answer)
        for group, place in lookup.waiters:
            group.put(place, answer)

    def _pass_on(self, lookup: _Lookup, server: _Server, why: str) -> None:
        """Ask a server that was not yet asked, now that `server` is of no use."""
        if lookup.due == _ENDED:
            return
        for other in self._servers:
            if not lookup.tried & other.bit:
                self._send(lookup, other)
                return
        # A later attempt may still be answered.
        if server is lookup.last:
            self._finish(lookup, _failed(f"{why} from {server.text}"))

    def _ask_again(self) -> None:
        """Send once more what was not answered in time."""
        assert self._loop is not None
        now = self._clock()
        attempts = self._attempts
        # An attempt is over, too, when a later one of the same lookup was made.
        while attempts and (attempts[0][0] <= now or attempts[0][1].due == _ENDED):
            due, lookup = attempts.popleft()
            if lookup.due == due:
                self._send(lookup, lookup.last.next)
        self._timer = None
        if attempts:
            self._timer = self._loop.call_at(attempts[0][0], self._ask_again)

    # UDP

    def _send(self, lookup: _Lookup, server: _Server) -> None:
        assert self._loop is not None
        now = self._clock()
        lookup.last = server
        lookup.tried |= server.bit
        lookup.due = now + self._attempt_seconds
        self._attempts.append((lookup.due, lookup))
        if self._timer is None:
            self._timer = self._loop.call_at(lookup.due, self._ask_again)
        try:
            port = self._choose_port(lookup, server, now)
        except OSError as error:
            self._pass_on(lookup, server, _reason(error))
            return
        ident = self._draw()
        while ident in port.outstanding:
            ident = self._draw()
        port.asked += 1
        port.outstanding[ident] = lookup
        lookup.sent.append((port, ident))
        try:
            port.sock.send(lookup.message(ident))
        except BlockingIOError:
            pass  # as good as lost on the way: it will be asked again
        except OSError as error:
            self._lose(port, error)

    def _choose_port(self, lookup: _Lookup, server: _Server, now: float) -> _Port:
        ports = server.ports
        slot = self._draw()[0] % len(ports)
        if lookup.sent and lookup.sent[-1][0] is ports[slot]:
            slot = (slot + 1) % len(ports)
        port = ports[slot]
        if port is not None:
            if port.asked < QUESTIONS_PER_PORT and now < port.retire_at:
                return port
            ports[slot] = None
            if port.outstanding:
                self._retired.add(port)
            else:
                self._close_port(port)
        assert self._loop is not None
        port = ports[slot] = _Port(server, now + PORT_SECONDS)
        self._loop.add_reader(port.sock, self._read, port)
        return port

    def _draw(self) -> bytes:
        """Return two random bytes; the kernel is asked for many at a time."""
        at = self._random_at
        if at >= len(self._random):
            self._random = os.urandom(2048)
            at = 0
        self._random_at = at + 2
        return self._random[at : at + 2]

    def _read(self, port: _Port) -> None:
        try:
            message = port.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(port, error)
            return
        ident = message[:2]
        lookup = port.outstanding.get(ident)
        if lookup is None or not lookup.question.is_answered_by(message):
            self.ignored += 1
            return
        self._forget(port, ident)
        if message[2] & 2:  # TC: RFC 7766, 5
            self._start_stream(lookup, port.server)
        else:
            self._take(lookup, port.server, message)

    def _take(self, lookup: _Lookup, server: _Server, message: bytes) -> None:
        """Judge a response that is whole and belongs to `lookup`."""
        rcode = message[3] & 15
        if rcode in (_FORMERR, _NOTIMP) and lookup.edns:
            lookup.edns = False  # a server older than EDNS: RFC 6891, 7
            self._send(lookup, server)
            return
        if rcode not in (0, _NXDOMAIN):
            code = dns.rcode.to_text(dns.rcode.Rcode.make(rcode))
            self._pass_on(lookup, server, code)
            return
        answer, seconds = read_answer(lookup.question, message)
        if answer.status is Status.FAILED:
            self._pass_on(lookup, server, answer.why)
        else:
            self._finish(lookup, answer, seconds)

    def _lose(self, port: _Port, error: OSError) -> None:
        """Give up what was asked from `port`: an ICMP error does not say which."""
        for ident, lookup in list(port.outstanding.items()):
            self._forget(port, ident)
            self._pass_on(lookup, port.server, _reason(error))

    def _forget(self, port: _Port, ident: bytes) -> None:
        port.outstanding.pop(ident, None)
        if port in self._retired and not port.outstanding:
            self._retired.remove(port)
            self._close_port(port)

    def _close_port(self, port: _Port) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(port.sock)
        port.sock.close()

    # TCP

    def _start_stream(self, lookup: _Lookup, server: _Server) -> None:
        assert self._loop is not None
        if server not in lookup.streams:
            task = self._loop.create_task(self._ask_by_tcp(lookup, server))
            lookup.streams[server] = task

    async def _ask_by_tcp(self, lookup: _Lookup, server: _Server) -> None:
        ident = self._draw()
        try:
            message = await self._exchange(server, lookup.message(ident))
        except (OSError, EOFError) as error:
            why = _reason(error)
        else:
            if message[:2] != ident or not lookup.question.is_answered_by(message):
                why = "answer to another question"
            else:
                why = "answer cut off" if message[2] & 2 else ""
        del lookup.streams[server]
        if why:
            self._pass_on(lookup, server, f"{why} by TCP")
        else:
            self._take(lookup, server, message)

    async def _exchange(self, server: _Server, request: bytes) -> bytes:
        """Send one message by TCP and return the one that comes back.

        The length goes first, in two bytes (RFC 1035, 4.2.2).
        """
        loop = self._loop
        assert loop is not None
        with socket.socket(server.family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, server.address)
            await loop.sock_sendall(sock, len(request).to_bytes(2, "big") + request)
            received, needed = b"", 2
            while len(received) < needed:
                chunk = await loop.sock_recv(sock, 65537)
                if not chunk:
                    raise EOFError
                received += chunk
                if len(received) >= 2:
                    needed = 2 + int.from_bytes(received[:2], "big")
        return received[2:needed]


def _reason(error: OSError | EOFError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, EOFError):
        return "connection closed"
    return os.strerror(error.errno or errno.EIO)
