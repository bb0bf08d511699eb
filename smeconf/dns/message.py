"""Questions and answers of the DNS: names, and messages to and from their bytes.

Names and records are dnspython's work.  Answers that say "no" are read here by hand,
since most questions about a client get that answer and a message asks dozens of them.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import ipaddress
import re
import struct
from collections.abc import Sequence

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype

PAYLOAD_BYTES = 1232  # what passes everywhere unfragmented: dnsflagday.net/2020
POSITIVE_TTL_SECONDS = 86400
NEGATIVE_TTL_SECONDS = 10800  # RFC 2308, 5: one to three hours work well
FORMERR, NXDOMAIN, NOTIMP = 1, 3, 4

_NS, _SOA, _OPT = 2, 6, 41
_ASK_PLAIN = bytes.fromhex("0100 0001 0000 0000 0000")  # RD, one question
_ASK_EDNS = bytes.fromhex("0100 0001 0000 0000 0001")
_OPT_RECORD = struct.pack("!BHHIH", 0, _OPT, PAYLOAD_BYTES, 0, 0)  # RFC 6891, 6.1.2
_RECORD = struct.Struct("!HHIH")  # what follows the owner's name: RFC 1035, 3.2.1
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


def failed(why: str) -> Answer:
    """Return the answer that is none, for the reason `why`."""
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

    def message(self, ident: bytes, edns: bool) -> bytes:
        """Return the message that asks this, under an id of two bytes."""
        if edns:
            return ident + _ASK_EDNS + self.section + _OPT_RECORD
        return ident + _ASK_PLAIN + self.section

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
        return failed(f"malformed answer ({type(error).__name__})"), 0


def _read_denial(question: Question, message: bytes) -> tuple[Answer, int]:
    seconds, is_referral = _walk_authority(question, message)
    if message[3] & 15 == NXDOMAIN:
        return _NO_NAME, seconds
    if is_referral:
        # The server does not know and says who might: RFC 2308, 2.2
        return failed("referral in place of an answer"), 0
    return _NO_DATA, seconds


def _read_records(question: Question, message: bytes) -> tuple[Answer, int]:
    parsed = dns.message.from_wire(message, ignore_trailing=True)
    if parsed.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return failed(dns.rcode.to_text(parsed.rcode())), 0
    assert isinstance(parsed, dns.message.QueryMessage)  # the opcode was checked
    chain = parsed.resolve_chaining()
    if chain.answer is not None:
        seconds = min(chain.minimum_ttl, POSITIVE_TTL_SECONDS)
        return Answer(Status.FOUND, tuple(chain.answer), "NOERROR"), seconds
    if not chain.cnames:
        return failed("records of another name or type"), 0
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
