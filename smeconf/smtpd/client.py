"""The other side of SMTP: one connection to a next server (RFC 5321; LMTP, RFC 2033).

    peer = Peer(parse_target("next.test:25", 25), Terms(me="mx.test"))
    await peer.open()
    await peer.begin(envelope)         # MAIL and every RCPT were accepted
    replies = await peer.send(message, recipients=1)

Refused is raised for what the server says of a message, Unreachable where it cannot be
spoken to.  Everything is bounded in time, what the server says in size too.  Which
server, and what is tried again, is the business of delivery.py.

Needs a task: call it from one.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from smeconf.smtpd.address import Address
from smeconf.smtpd.message import Message

_TLS_POLICIES = ("no", "may", "must", "verify")

_CONNECT_SECONDS = 15.0  # an address; a name may have several
_END_FACTOR = 3  # the end of data may take that much longer than another step
_FRESH_SECONDS = 5.0  # idle for longer: asked whether it is still there
_REPLY_BYTES = 32 * 1024
_IMPLICIT_TLS_PORT = 465
_BROKEN = (OSError, EOFError, TimeoutError, ssl.SSLError)
# xtext (RFC 3461, 4): what XCLIENT writes values in.
_NO_XTEXT = re.compile(rb"[^!-*,-<>-~]")


@dataclass(frozen=True, slots=True)
class Target:
    """A server: a host and a port, or the path of a UNIX socket."""

    host: str
    port: int = 25
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else self._plain()

    def _plain(self) -> str:
        return f"{self.host}:{self.port}"


def parse_target(text: str, port: int) -> Target:
    """Read HOST, HOST:PORT, [IPv6]:PORT or unix:/PATH; ``port`` where none is said.

    Raises ValueError.
    """
    if text.startswith("unix:"):
        if not text.startswith("unix:/"):
            raise ValueError(f"{text}: a socket is unix:/PATH")
        return Target("", 0, text[5:])
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text}: is no [ADDRESS]:PORT")
        rest = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, rest = text.partition(":")
    else:
        host, rest = text, ""
    if not host:
        raise ValueError(f"{text!r}: names no host")
    if rest and not (rest.isascii() and rest.isdigit() and 0 < int(rest) < 65536):
        raise ValueError(f"{text}: no port")
    return Target(host, int(rest) if rest else port)


def parse_tls_policy(word: str) -> str:
    """Read how far encryption is asked for, see Terms.  Raises ValueError."""
    if word not in _TLS_POLICIES:
        raise ValueError(f"must be one of {', '.join(_TLS_POLICIES)}, not {word!r}")
    return word


@dataclass(frozen=True)
class Terms:
    """How servers are spoken to.

    ``tls``: no; may, where it is offered, whoever the server is; must; verify, with a
    certificate that the system trusts.  ``logins`` are name and password by target,
    given inside TLS alone unless ``login_in_clear``.  ``xclient`` tells the server of
    our client where it offers that; ``lmtp`` speaks LMTP.
    """

    me: str
    timeout: float = 60.0
    tls: str = "may"
    logins: Mapping[Target, tuple[str, str]] = field(default_factory=dict, repr=False)
    login_in_clear: bool = False
    xclient: bool = False
    lmtp: bool = False

    @cached_property
    def tls_context(self) -> ssl.SSLContext:
        """What encryption begins with; made once, since the system's store is large."""
        if self.tls == "verify":
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


@dataclass(frozen=True)
class Envelope:
    """For whom a message is, and what a server is told of it.

    ``client`` is address and HELO name of our client, for XCLIENT.
    """

    sender: Address
    recipients: tuple[Address, ...]
    size: int = 0
    utf8: bool = False
    eight_bit: bool = False
    client: tuple[str, str] = ("", "")

    @property
    def needs_utf8(self) -> bool:
        """Whether an address cannot be written without SMTPUTF8 (RFC 6531)."""
        return not all(str(a).isascii() for a in (self.sender, *self.recipients))


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: its code, and its lines as one text."""

    code: int
    text: str

    @property
    def is_good(self) -> bool:
        """Whether the command did what it was to do."""
        return 200 <= self.code < 300

    @property
    def is_final(self) -> bool:
        """Whether it refuses for good."""
        return 500 <= self.code < 600


class Refused(Exception):
    """The server's replies to a step of one message, one of which at least is no yes.

    ``replies`` goes with the recipients at RCPT and, of LMTP, at the end of data; else
    it has one item.
    """

    def __init__(self, target: Target, step: str, replies: Sequence[Reply]) -> None:
        bad = next(reply for reply in replies if not reply.is_good)
        super().__init__(f"{target} answered {step}: {bad.code} {bad.text}")
        self.step = step
        self.replies = tuple(replies)
        self.text = bad.text

    @property
    def is_final(self) -> bool:
        """Whether all of it is refused for good."""
        return all(reply.is_final for reply in self.replies)

    def refused_for_good(self, recipients: Sequence[Address]) -> list[Address]:
        """Return those of ``recipients`` that the replies, one each, refuse so."""
        if self.step != "RCPT":
            return []
        pairs = zip(recipients, self.replies, strict=True)
        return [recipient for recipient, reply in pairs if reply.is_final]


class Unreachable(Exception):
    """A server that cannot be spoken to, says no to everything, or fell silent.

    ``is_answer``: it said so itself.  ``is_handed_over``: the whole message was sent,
    and no reply came.
    ``is_worth_another_try``: the connection was cut, or closed by 421; a fresh one
    may serve.
    """

    def __init__(
        self,
        target: Target,
        why: str,
        *,
        is_answer: bool = False,
        is_handed_over: bool = False,
        is_worth_another_try: bool = False,
    ) -> None:
        super().__init__(f"{target}: {why}")
        self.is_answer = is_answer
        self.is_handed_over = is_handed_over
        self.is_worth_another_try = is_worth_another_try and not is_handed_over


class Peer:
    """One connection to a next server."""

    def __init__(self, target: Target, terms: Terms) -> None:
        self.target = target
        self.idle_since = 0.0
        self.is_reused = False
        self.has_answered_mail = False
        self.has_refused = False  # and may hold half an envelope
        self.is_closing = False  # it has said so
        self._terms = terms
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._held = b""  # read, and not yet looked at
        self._extensions: dict[str, str] = {}
        self._is_encrypted = False
        self._is_told_to_send = False  # DATA was answered 354
        self._is_handed_over = False

    async def open(self) -> None:
        """Connect, greet, encrypt and log in.  Raises Unreachable."""
        try:
            await self._open(self._terms.tls)
        except ssl.SSLError as error:
            self.close()
            if self._terms.tls != "may" or self.target.port == _IMPLICIT_TLS_PORT:
                raise self._unreachable(error) from error
            # Encryption that does not work is as good as none offered.
            await self._open_in_clear()
        except _BROKEN as error:
            self.close()
            raise self._unreachable(error) from error
        except BaseException:
            self.close()
            raise

    async def _open_in_clear(self) -> None:
        self._extensions, self._held = {}, b""
        try:
            await self._open("no")
        except _BROKEN as error:
            self.close()
            raise self._unreachable(error) from error
        except BaseException:
            self.close()
            raise

    async def _open(self, tls: str) -> None:
        await self._connect()
        await self._step("greeting", "", 220)
        await self._greet()
        if tls != "no" and not self._is_encrypted and not self.target.path:
            await self._start_tls(tls)
        login = self._terms.logins.get(self.target)
        if login is not None:
            await self._log_in(*login)

    async def _connect(self) -> None:
        seconds = min(self._terms.timeout, _CONNECT_SECONDS)
        if self.target.path:
            async with asyncio.timeout(seconds):
                streams = await asyncio.open_unix_connection(self.target.path)
            self._reader, self._writer = streams
            return
        is_implicit = self.target.port == _IMPLICIT_TLS_PORT
        self._is_encrypted = is_implicit
        last: BaseException = OSError("the name has no address")
        for address in await _addresses_of(self.target, seconds):
            try:
                async with asyncio.timeout(seconds):
                    streams = await asyncio.open_connection(
                        address,
                        self.target.port,
                        ssl=self._terms.tls_context if is_implicit else None,
                        server_hostname=self.target.host if is_implicit else None,
                    )
            except (OSError, TimeoutError) as error:
                last = error
                continue
            self._reader, self._writer = streams
            return
        raise last

    async def _greet(self) -> None:
        verb = "LHLO" if self._terms.lmtp else "EHLO"
        reply = await self._ask(f"{verb} {self._terms.me}")
        if reply.code in (500, 502, 504) and verb == "EHLO":  # it is an old one
            await self._step("HELO", f"HELO {self._terms.me}", 250)
            self._extensions = {}
            return
        self._expect(verb, reply, 250)
        lines = reply.text.split(" / ")[1:]
        pairs = (line.partition(" ") for line in lines)
        self._extensions = {name.upper(): value for name, _, value in pairs}

    async def _start_tls(self, tls: str) -> None:
        if "STARTTLS" not in self._extensions:
            if tls == "may":
                return
            raise Unreachable(self.target, f"offers no encryption, tls {tls} wants it")
        reply = await self._ask("STARTTLS")
        if reply.code != 220:
            if tls == "may":
                return
            self._expect("STARTTLS", reply, 220)
        if self._held:
            # Said in the clear, to be taken as if it came encrypted.
            raise Unreachable(self.target, "went on in the clear behind STARTTLS")
        assert self._writer is not None
        before = self._writer.transport
        with suppress(AttributeError):  # which comes of what is looked at below
            async with asyncio.timeout(self._terms.timeout):
                await self._writer.start_tls(
                    self._terms.tls_context, server_hostname=self.target.host
                )
        if self._writer.transport is None:
            # asyncio, where the connection went with the last step of the handshake.
            self._writer._transport = before
            raise EOFError("closed the connection")
        self._is_encrypted = True
        await self._greet()

    async def _log_in(self, name: str, password: str) -> None:
        offered = self._extensions.get("AUTH", "").upper().split()
        if not self._is_encrypted and not self._terms.login_in_clear:
            raise Unreachable(self.target, "no login without encryption: set tls must")
        if "PLAIN" in offered:
            words = _base64(f"\0{name}\0{password}")
            await self._step("AUTH", f"AUTH PLAIN {words}", 235)
        elif "LOGIN" in offered:
            await self._step("AUTH", "AUTH LOGIN", 334)
            await self._step("AUTH", _base64(name), 334)
            await self._step("AUTH", _base64(password), 235)
        else:
            raise Unreachable(self.target, "takes no login by PLAIN or LOGIN")

    async def is_alive(self) -> bool:
        """Tell whether an idle connection still serves."""
        if self._held or self._reader.at_eof():
            return False
        is_fresh = time.monotonic() - self.idle_since < _FRESH_SECONDS
        if is_fresh and not self.has_refused:
            return True
        try:
            self.has_refused = not (await self._ask("RSET")).is_good
        except _BROKEN:
            return False
        return not self.has_refused

    async def begin(self, envelope: Envelope, *, asks_data: bool = False) -> None:
        """Hand over the envelope; ``asks_data``: DATA with it, to save a turn.

        Raises Refused where MAIL or a recipient is, Unreachable.
        """
        self.has_answered_mail = self._is_handed_over = self._is_told_to_send = False
        try:
            await self._tell_of_client(envelope)
            await self._begin(envelope, asks_data=asks_data)
        except _BROKEN as error:
            raise self._unreachable(error) from error

    async def _begin(self, envelope: Envelope, *, asks_data: bool) -> None:
        if envelope.needs_utf8 and "SMTPUTF8" not in self._extensions:
            text = "The next server cannot take addresses beyond ASCII"
            raise Refused(self.target, "MAIL", [Reply(550, text)])
        commands = [self._mail_command(envelope)]
        commands += (f"RCPT TO:<{recipient}>" for recipient in envelope.recipients)
        if "PIPELINING" not in self._extensions:
            self._check("MAIL", [await self._ask(commands[0])])
            self.has_answered_mail = True
            self._check("RCPT", [await self._ask(one) for one in commands[1:]])
            return
        if asks_data:
            commands.append("DATA")
        await self._write("".join(f"{one}\r\n" for one in commands).encode())
        mail = await self._reply()
        self.has_answered_mail = True
        replies = [await self._reply() for _ in envelope.recipients]
        if asks_data:
            data = await self._reply()
            self._is_told_to_send = data.code == 354
        self._check("MAIL", [mail])
        self._check("RCPT", replies)
        if asks_data and not self._is_told_to_send:
            self._check("DATA", [data])

    def _mail_command(self, envelope: Envelope) -> str:
        words = [f"MAIL FROM:<{envelope.sender}>"]
        if "SIZE" in self._extensions and envelope.size:
            words.append(f"SIZE={envelope.size}")
        if "8BITMIME" in self._extensions and envelope.eight_bit:
            words.append("BODY=8BITMIME")
        if "SMTPUTF8" in self._extensions and (envelope.utf8 or envelope.needs_utf8):
            words.append("SMTPUTF8")
        return " ".join(words)

    async def _tell_of_client(self, envelope: Envelope) -> None:
        offered = self._extensions.get("XCLIENT", "").upper().split()
        if not self._terms.xclient or not offered or not envelope.client[0]:
            return
        address, hello = envelope.client
        address = f"IPV6:{address}" if ":" in address else address
        values = {"NAME": "[UNAVAILABLE]", "ADDR": address, "HELO": hello}
        words = [
            f"{name}={_xtext(value)}"
            for name, value in values.items()
            if name in offered and value
        ]
        await self._step("XCLIENT", " ".join(["XCLIENT", *words]), 220)
        await self._greet()

    async def send(self, message: Message, recipients: int) -> list[Reply]:
        """Send the text; return the replies to its end: one, or of LMTP one for each
        recipient, good or not.

        Raises Refused, which of SMTP is for the end of data too, and Unreachable.
        """
        try:
            if not self._is_told_to_send:
                data = await self._ask("DATA")
                if data.code != 354:
                    self._check("DATA", [data])
                self._is_told_to_send = True
            await self._send_text(message)
            wait = self._terms.timeout * _END_FACTOR
            count = recipients if self._terms.lmtp else 1
            replies = [await self._reply(wait) for _ in range(count)]
        except _BROKEN as error:
            raise self._unreachable(error) from error
        if not self._terms.lmtp:
            self._check("end of data", replies)
        self._is_told_to_send = False
        return replies

    @property
    def is_between_messages(self) -> bool:
        """Whether commands can follow, not the text of a message."""
        return self._is_handed_over or not self._is_told_to_send

    async def _send_text(self, message: Message) -> None:
        carried = b"\r\n"  # a dot is stuffed behind CRLF, which pieces may cut
        try:
            for piece in message.pieces():
                stuffed = (carried + piece).replace(b"\r\n.", b"\r\n..")
                await self._write(stuffed[len(carried) :])
                carried = (carried + piece)[-2:]
        except ConnectionError as error:
            # It may have said why before it hung up.
            with suppress(*_BROKEN):
                reply = await self._reply(1.0)
                if reply.code >= 400:
                    self.is_closing = True
                    raise Refused(self.target, "DATA", [reply]) from error
            raise
        self._is_handed_over = True
        await self._write(b".\r\n" if carried == b"\r\n" else b"\r\n.\r\n")

    def _check(self, step: str, replies: Sequence[Reply]) -> None:
        """Raise what a reply calls for that is no yes."""
        for reply in replies:
            if reply.code == 421:
                raise self._said_421(reply)
        if not all(reply.is_good for reply in replies):
            wrong = [
                # Neither yes nor no: 3xx, say.
                reply if reply.is_good or reply.code >= 400 else Reply(451, reply.text)
                for reply in replies
            ]
            raise Refused(self.target, step, wrong)

    def _said_421(self, reply: Reply) -> Exception:
        if self._is_handed_over:  # it has said that it did not take it
            return Refused(self.target, "end of data", [reply])
        why = f"answered 421 {reply.text}"
        return Unreachable(self.target, why, is_answer=True, is_worth_another_try=True)

    async def _step(self, name: str, command: str, wanted: int) -> None:
        """Take a step that is not of one message.  Raises Unreachable."""
        reply = await (self._ask(command) if command else self._reply())
        self._expect(name, reply, wanted)

    def _expect(self, name: str, reply: Reply, wanted: int) -> None:
        if reply.code != wanted:
            raise Unreachable(
                self.target,
                f"answered {name}: {reply.code} {reply.text}",
                is_answer=True,
                is_worth_another_try=reply.code == 421,
            )

    async def _ask(self, command: str) -> Reply:
        await self._write(command.encode() + b"\r\n")
        return await self._reply()

    async def _write(self, data: bytes) -> None:
        assert self._writer is not None
        if self._writer.is_closing():  # where uvloop raises RuntimeError
            raise ConnectionResetError("closed the connection")
        self._writer.write(data)
        async with asyncio.timeout(self._terms.timeout):
            await self._writer.drain()

    async def _reply(self, seconds: float = 0.0) -> Reply:
        """Read a reply.  Raises EOFError where the connection or the protocol ends."""
        async with asyncio.timeout(seconds or self._terms.timeout):
            lines: list[str] = []
            size = 0
            while True:
                line = await self._line()
                size += len(line)
                if size > _REPLY_BYTES or not line[:3].isdigit():
                    raise _NotSmtp(f"no SMTP reply: {line[:60]!r}")
                lines.append(line[4:].decode("utf-8", "replace").strip())
                if line[3:4] != b"-":
                    self.is_closing = line[:3] == b"421"
                    return Reply(int(line[:3]), " / ".join(lines))

    async def _line(self) -> bytes:
        while (end := self._held.find(b"\n")) < 0:
            if len(self._held) > _REPLY_BYTES:
                raise _NotSmtp(f"no SMTP reply: {self._held[:60]!r}")
            data = await self._reader.read(4096)
            if not data:
                raise EOFError("closed the connection")
            self._held += data
        line, self._held = self._held[: end + 1], self._held[end + 1 :]
        return line

    def _unreachable(self, error: BaseException) -> Unreachable:
        is_cut = isinstance(error, EOFError | ConnectionError)
        is_refused = isinstance(error, ConnectionRefusedError | _NotSmtp)
        why = str(error) or ("no answer in time" if is_silent(error) else repr(error))
        return Unreachable(
            self.target,
            why,
            is_handed_over=self._is_handed_over,
            is_worth_another_try=is_cut and not is_refused,
        )

    def close(self) -> None:
        """Hang up at once."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    def quit(self) -> None:
        """Say goodbye, and hang up."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.write(b"QUIT\r\n")
            self._writer.close()
            self._writer = None


class _NotSmtp(EOFError):
    """What cannot be a reply: with it the conversation ends."""


def is_silent(error: BaseException) -> bool:
    """Tell whether somebody did not answer in time."""
    return isinstance(error, TimeoutError)


async def _addresses_of(target: Target, seconds: float) -> list[str]:
    """Return the addresses of a target's host.  Raises OSError, TimeoutError."""
    with suppress(ValueError):
        return [str(ipaddress.ip_address(target.host))]
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds):
        found = await loop.getaddrinfo(
            target.host, target.port, type=socket.SOCK_STREAM
        )
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _xtext(text: str) -> str:
    data = text.encode("utf-8", "surrogateescape")
    return _NO_XTEXT.sub(lambda byte: b"+%02X" % byte[0][0], data).decode()
