"""The conversation with one client: commands in, replies out (RFC 5321).

A session knows no socket: the protocol hands it lines and message data, so that the
same session can be played without a network.  Commands are coroutines, since their
hooks may wait for a name server or a disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from smeconf.smtpd.commands import CommandError, parse_bdat, parse_mail, parse_rcpt
from smeconf.smtpd.data import ChunkDecoder, DataDecoder
from smeconf.smtpd.hooks import Answer, Verdict, denysoft
from smeconf.smtpd.loader import Configuration
from smeconf.smtpd.log import ERROR
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Plugin
from smeconf.smtpd.replies import denial_reply, refusal_of, reply
from smeconf.smtpd.sasl import MAX_LINE_BYTES as MAX_AUTH_BYTES
from smeconf.smtpd.sasl import Challenge, Exchange, Failure, Step
from smeconf.smtpd.state import Connection, Transaction
from smeconf.smtpd.stats import MESSAGE_BYTES, MESSAGES, REFUSED

_BAD_SEQUENCE = "5.5.1"
MAX_LINE_BYTES = 2048
_ERRORS = b"4"  # replies from 400 on, as text


class Session:
    """One client, from greeting to QUIT.

    ``closing`` says that the connection ends once the reply is sent; ``is_receiving``
    that what arrives is message data, not commands; ``starts_tls`` that encryption
    begins behind the reply.
    """

    def __init__(
        self, configuration: Configuration, id: str, remote: str, local_port: int
    ) -> None:
        self.configuration = configuration
        self.connection = Connection(id, remote, local_port)
        self.plugins = configuration.plugins_for(self.connection.remote)
        self.closing = False
        self.starts_tls = False
        self._decoder: DataDecoder | ChunkDecoder | None = None
        self._chunks: ChunkDecoder | None = None  # of a message that comes in BDAT
        self._chunk = _Chunk()
        self._exchange: Exchange | None = None  # an AUTH that waits for a line
        self._spool_failed = False
        self._errors = 0
        self._junk = 0

    @property
    def is_receiving(self) -> bool:
        """Whether the client is sending a message."""
        return self._decoder is not None

    @property
    def max_line_bytes(self) -> int:
        """How long the next line may be: that of a login more (RFC 4954, 4)."""
        return MAX_AUTH_BYTES if self._exchange is not None else MAX_LINE_BYTES

    async def greet(self) -> bytes:
        """Return the greeting, or the refusal of the whole connection."""
        answer, plugin = await self.plugins.decide("connect", self.connection)
        if answer.is_denial:
            return await self._deny("connect", answer, plugin)
        greeting = self.configuration.settings.greeting
        if "ESMTP" not in greeting:
            greeting += " ESMTP"
        return reply(220, "", greeting)

    async def command(self, line: bytes) -> bytes:
        """Return the reply to a command line (with its line end)."""
        answer = await self._act(line)
        if answer >= _ERRORS and not self.closing:
            return await self._mind_errors(answer)
        return answer

    async def _act(self, line: bytes) -> bytes:
        if not line.endswith(b"\r\n"):
            return reply(500, "5.5.2", "A line ends with CR LF")
        text = line[:-2].decode("utf-8", "surrogateescape")
        try:
            if self._exchange is not None:
                return await self._go_on_with_auth(self._exchange, text)
            verb, _, argument = text.partition(" ")
            act = _COMMANDS.get(verb.upper())
            if act is None or not text.isprintable():
                return await self._unrecognized(text)
            return await act(self, argument)
        except CommandError as error:
            return reply(error.code, error.enhanced, error.text)

    async def _mind_errors(self, answer: bytes) -> bytes:
        """Return a refusal: late to one who makes many errors, and no more to one who
        makes too many."""
        self._errors += 1
        limits = self.configuration.limits
        if 0 < limits.errors_hard <= self._errors:
            self.closing = True
            return reply(421, "4.7.0", "Too many errors")
        if 0 < limits.errors_soft < self._errors:
            await asyncio.sleep(limits.error_delay)
        return answer

    async def _helo(self, argument: str) -> bytes:
        return await self._hello("helo", argument)

    async def _ehlo(self, argument: str) -> bytes:
        return await self._hello("ehlo", argument)

    async def _hello(self, hook: str, argument: str) -> bytes:
        name = argument.strip()
        if not name:
            return reply(501, "5.5.4", f"{hook.upper()} takes your host name")
        connection = self.connection
        await self._reset()
        connection.hello, connection.greeted_as = name, hook.upper()
        answer, plugin = await self.plugins.decide(hook, connection, name)
        if answer.is_denial:
            connection.hello = connection.greeted_as = ""
            return await self._deny(hook, answer, plugin)
        if hook == "helo":
            return reply(250, "", self.configuration.settings.me)
        return reply(250, "", *self._extensions())

    def _extensions(self) -> list[str]:
        """Return the lines of the reply to EHLO."""
        settings = self.configuration.settings
        lines = [settings.me, "PIPELINING", f"SIZE {settings.databytes}", "8BITMIME"]
        lines += ("SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES")
        if self._offers_tls():
            lines.append("STARTTLS")
        if self._offers_auth():
            lines.append("AUTH PLAIN LOGIN")
        return lines

    def _offers_tls(self) -> bool:
        return not self.connection.tls and self.plugins.tls_context is not None

    def _offers_auth(self) -> bool:
        must_encrypt = self.configuration.settings.tls_before_auth
        return (bool(self.connection.tls) or not must_encrypt) and any(
            plugin.offers_login_to(self.connection) for plugin in self.plugins.plugins
        )

    async def _starttls(self, argument: str) -> bytes:
        if argument.strip():
            raise CommandError(501, "5.5.4", "STARTTLS takes no argument")
        if self.connection.tls:
            raise CommandError(503, _BAD_SEQUENCE, "The connection is encrypted")
        if not self._offers_tls():
            raise CommandError(502, "5.5.1", "No encryption here")
        self.starts_tls = True
        return reply(220, "2.0.0", "Go ahead")

    async def tls_started(self, description: str) -> bytes:
        """Begin anew, encrypted: what was said in the clear is forgotten (RFC 3207,
        4.2).  Returns no reply."""
        self.starts_tls = False
        await self._reset()
        connection = self.connection
        connection.hello = connection.greeted_as = ""
        connection.tls = description
        return b""

    async def _auth(self, argument: str) -> bytes:
        connection = self.connection
        if not any(one.offers_login_to(connection) for one in self.plugins.plugins):
            raise CommandError(502, "5.5.1", "No logging in here")
        if not connection.hello or connection.user or connection.transaction:
            raise CommandError(503, _BAD_SEQUENCE, "Not now")
        if not self._offers_auth():
            raise CommandError(538, "5.7.11", "Turn on encryption first")
        mechanism, _, initial = argument.strip().partition(" ")
        try:
            exchange = Exchange(mechanism.upper())
        except ValueError:
            raise CommandError(504, "5.5.4", "PLAIN and LOGIN are known") from None
        return await self._take_step(exchange, exchange.begin(initial.strip() or None))

    async def _go_on_with_auth(self, exchange: Exchange, line: str) -> bytes:
        self._exchange = None
        return await self._take_step(exchange, exchange.answer(line))

    async def _take_step(self, exchange: Exchange, step: Step) -> bytes:
        if isinstance(step, Challenge):
            self._exchange = exchange
            return reply(334, "", step.text)
        if isinstance(step, Failure):
            raise CommandError(step.code, step.enhanced, step.text)
        connection = self.connection
        answer, plugin = await self.plugins.decide("auth", connection, step)
        if answer.verdict is Verdict.OK:
            connection.log_in(step.user)
            local = self.configuration.lists.get("local")
            self.plugins = self.plugins if local is None else local
            return reply(235, "2.7.0", "Welcome")
        if answer.is_denial:
            denied = await self._deny("auth", answer, plugin)
        else:
            denied = reply(535, "5.7.8", "Name or password is wrong")
        if answer.verdict is Verdict.DENYSOFT:
            return denied
        connection.auth_failures += 1
        if 0 < self.configuration.limits.auth_failures <= connection.auth_failures:
            self.closing = True
            return reply(421, "4.7.0", "Too many failures")
        return denied

    async def _mail(self, argument: str) -> bytes:
        connection = self.connection
        if not connection.hello:
            raise CommandError(503, _BAD_SEQUENCE, "Please say hello first")
        if connection.transaction is not None:
            raise CommandError(503, _BAD_SEQUENCE, "One MAIL a message")
        command = parse_mail(argument)
        limit = self.configuration.settings.databytes
        if limit and command.size > limit:
            raise CommandError(552, "5.3.4", f"Message too big: {limit} bytes at most")
        connection.transaction = Transaction(command.sender, utf8=command.utf8)
        answer, plugin = await self.plugins.decide("mail", connection, command.sender)
        if answer.is_denial:
            denied = await self._deny("mail", answer, plugin)
            await self._reset()
            return denied
        return reply(250, "2.1.0", "Sender accepted")

    async def _rcpt(self, argument: str) -> bytes:
        connection = self.connection
        transaction = connection.transaction
        if transaction is None:
            raise CommandError(503, _BAD_SEQUENCE, "MAIL first")
        recipient = parse_rcpt(argument, utf8=transaction.utf8)
        limit = self.configuration.limits.recipients
        if 0 < limit <= len(transaction.recipients):
            raise CommandError(452, "4.5.3", f"Too many recipients: {limit} a message")
        answer, plugin = await self.plugins.decide("rcpt", connection, recipient)
        if answer.verdict is Verdict.OK:
            transaction.recipients.append(recipient)
            return reply(250, "2.1.5", answer.text or "Recipient accepted")
        if not answer.is_denial:
            answer = denysoft("No plugin decided if relaying is allowed")
        transaction.recipients.append(recipient)  # the log names whom it was for
        denied = await self._deny("rcpt", answer, plugin)
        transaction.recipients.pop()
        return denied

    async def _data(self, argument: str) -> bytes:
        connection = self.connection
        transaction = connection.transaction
        if argument.strip():
            raise CommandError(501, "5.5.4", "DATA takes no argument")
        if transaction is None:
            raise CommandError(503, _BAD_SEQUENCE, "MAIL first")
        if self._chunks is not None:
            raise CommandError(503, _BAD_SEQUENCE, "BDAT it was, BDAT it stays")
        if not transaction.recipients:
            raise CommandError(503, _BAD_SEQUENCE, "RCPT first")
        denied = await self._begin_message(transaction)
        if denied:
            return denied
        self._decoder = DataDecoder()
        return reply(354, "", "Go ahead, end with a dot on a line of its own")

    async def _begin_message(self, transaction: Transaction) -> bytes:
        """Make room for the text; return the refusal of a plugin, else nothing."""
        answer, plugin = await self.plugins.decide("data", self.connection)
        if answer.is_denial:
            denied = await self._deny("data", answer, plugin)
            await self._reset()
            return denied
        transaction.message = Message(self.configuration.spool)
        self._spool_failed = False
        return b""

    async def _bdat(self, argument: str) -> bytes:
        """Take a chunk of the message (RFC 3030).

        Whatever is wrong, the chunk follows and is read: it is no commands.
        """
        try:
            size, is_last = parse_bdat(argument)
        except CommandError:
            self.closing = True  # what follows may be text, and is no command
            raise
        self._chunk = _Chunk(size, is_last)
        transaction = self.connection.transaction
        if transaction is None or not transaction.recipients:
            self._chunk.refusal = reply(503, _BAD_SEQUENCE, "MAIL and RCPT first")
        elif self._chunks is None:
            self._chunk.refusal = await self._begin_message(transaction)
            if not self._chunk.refusal:
                self._chunks = ChunkDecoder()
        decoder = self._chunks or ChunkDecoder()
        decoder.begin(size)
        self._decoder = decoder
        return b"" if size else await self.end_of_data()

    def receive(self, data: bytes) -> bytes | None:
        """Take message data; return what stood behind its end, None before that."""
        decoder = self._decoder
        assert decoder is not None
        piece, rest = decoder.feed(data)
        if self._chunk.refusal:
            return rest
        message = self._message
        if self._spool_failed or self._is_too_big(message.size):
            message.size += len(piece)
            return rest
        try:
            message.write(piece)
        except OSError as error:
            self._spool_failed = True
            self._log(ERROR, f"error, the spool cannot be written: {error.strerror}")
        if self._spool_failed or self._is_too_big(message.size):
            message.close()
        return rest

    async def end_of_data(self) -> bytes:
        """Return the reply to a message, or a chunk, whose end was received."""
        assert self._decoder is not None
        decoder, self._decoder = self._decoder, None
        chunk, self._chunk = self._chunk, _Chunk()
        if chunk.refusal:
            return chunk.refusal
        if isinstance(decoder, ChunkDecoder):
            if not chunk.is_last and not self._is_too_big(self._message.size):
                return reply(250, "2.0.0", f"{chunk.size} octets received")
            decoder.end()
        if decoder.has_bare_newline:
            answer = reply(550, "5.6.0", "A bare CR or LF in the message")
        elif self._is_too_big(self._message.size):
            answer = reply(552, "5.3.4", "Message too big!")
        elif self._spool_failed:
            answer = reply(452, "4.3.1", "No room for the message, try again later")
        elif self._message.has_headers_beyond(self.configuration.limits.header_size):
            answer = reply(552, "5.3.4", "The header is too big")
        else:
            answer = await self._judge_and_queue(self._message)
        await self._reset()
        return answer

    async def disconnected(self) -> bytes:
        """Tell the plugins that the client is gone.  Returns no reply."""
        await self._reset()
        await self.plugins.inform("disconnect", self.connection)
        return b""

    async def _judge_and_queue(self, message: Message) -> bytes:
        connection = self.connection
        await self.plugins.inform("data_post_headers", connection, message)
        message.add_header(self._received())
        for hook in ("data_post", "queue"):
            answer, plugin = await self.plugins.decide(hook, connection, message)
            if answer.is_denial:
                return await self._deny(hook, answer, plugin)
        if answer.verdict is not Verdict.OK:
            answer = denysoft("Queuing declined or disabled, try again later")
            return await self._deny("queue", answer, None)
        await self.plugins.inform("queue_post", connection, message)
        self.plugins.count(MESSAGES)
        self.plugins.count(MESSAGE_BYTES, message.size)
        messages = self.configuration.log.messages
        if messages is not None:
            messages.queued(connection, message, answer.text, connection.findings)
        self._junk = 0
        return reply(250, "2.0.0", answer.text or "Queued!")

    def _received(self) -> str:
        """Return the trace field of this server (RFC 5321, 4.4)."""
        connection = self.connection
        transaction = connection.transaction
        assert transaction is not None
        literal = (
            f"[IPv6:{connection.remote}]"
            if ":" in connection.remote
            else (f"[{connection.remote}]")
        )
        protocol = "SMTP"
        if connection.greeted_as == "EHLO":  # RFC 3848; RFC 6531, 3.7.3
            protocol = "UTF8SMTP" if transaction.utf8 else "ESMTP"
            protocol += "S" * bool(connection.tls) + "A" * bool(connection.user)
        recipients = transaction.recipients
        whom = f"\r\n\tfor <{recipients[0]}>" if len(recipients) == 1 else ""
        date = time.strftime("%a, %d %b %Y %H:%M:%S %z")
        return (
            f"Received: from {connection.hello} ({literal})\r\n"
            f"\tby {self.configuration.settings.me} (smeconf) with {protocol}"
            f" id {connection.id}{whom};\r\n\t{date}"
        )

    async def _rset(self, argument: str) -> bytes:
        await self._reset()
        self._count_junk()
        return reply(250, "2.0.0", "OK")

    async def _noop(self, argument: str) -> bytes:
        return await self._simple("noop", reply(250, "2.0.0", "OK"))

    async def _vrfy(self, argument: str) -> bytes:
        text = "Send some mail, and see whether it arrives"
        return await self._simple("vrfy", reply(252, "2.1.5", text))

    async def _simple(self, hook: str, standard: bytes) -> bytes:
        answer, plugin = await self.plugins.decide(hook, self.connection)
        if answer.is_denial:
            return await self._deny(hook, answer, plugin)
        self._count_junk()
        return standard

    def _count_junk(self) -> None:
        """Refuse one who does nothing but talk."""
        self._junk += 1
        if 0 < self.configuration.limits.junk_commands < self._junk:
            raise CommandError(450, "4.7.0", "Too many commands that do nothing")

    async def _help(self, argument: str) -> bytes:
        self._count_junk()
        return reply(214, "2.0.0", "Commands: " + " ".join(_COMMANDS))

    async def _quit(self, argument: str) -> bytes:
        self.closing = True
        return reply(221, "2.0.0", f"{self.configuration.settings.me} says goodbye")

    async def _unrecognized(self, text: str) -> bytes:
        connection = self.connection
        connection.unrecognized_commands += 1
        hook = "unrecognized_command"
        answer, plugin = await self.plugins.decide(hook, connection, text)
        if answer.is_denial:
            return await self._deny(hook, answer, plugin)
        return reply(500, "5.5.1", "Unrecognized command")

    async def _deny(self, hook: str, answer: Answer, plugin: Plugin | None) -> bytes:
        """Return the reply of a denial, and tell the plugins of it."""
        name = plugin.name if plugin is not None else hook
        await self.plugins.inform("deny", self.connection, name, answer)
        self.plugins.count(REFUSED + hook)
        messages = self.configuration.log.messages
        if messages is not None:
            connection = self.connection
            messages.refused(connection, name, answer, connection.findings)
        if refusal_of(hook, answer.verdict).closes:
            self.closing = True
        return denial_reply(hook, answer)

    async def _reset(self) -> None:
        """End the transaction."""
        transaction = self.connection.transaction
        if transaction is None:
            return
        await self.plugins.inform("reset_transaction", self.connection)
        if transaction.message is not None:
            transaction.message.close()
        self._chunks = None
        self.connection.transaction = None

    @property
    def _message(self) -> Message:
        transaction = self.connection.transaction
        assert transaction is not None
        assert transaction.message is not None
        return transaction.message

    def _is_too_big(self, size: int) -> bool:
        return 0 < self.configuration.settings.databytes < size

    def _log(self, level: int, text: str) -> None:
        connection = self.connection
        self.configuration.log.line(level, f"{connection.id} (data) core: {text}")


class _Chunk:
    """What BDAT said of the chunk that follows, and why it is read and thrown away."""

    __slots__ = ("is_last", "refusal", "size")

    def __init__(self, size: int = 0, is_last: bool = True) -> None:
        self.size = size
        self.is_last = is_last
        self.refusal = b""


_COMMANDS: dict[str, Callable[[Session, str], Awaitable[bytes]]] = {
    "HELO": Session._helo,
    "EHLO": Session._ehlo,
    "MAIL": Session._mail,
    "RCPT": Session._rcpt,
    "DATA": Session._data,
    "BDAT": Session._bdat,
    "STARTTLS": Session._starttls,
    "AUTH": Session._auth,
    "RSET": Session._rset,
    "NOOP": Session._noop,
    "VRFY": Session._vrfy,
    "HELP": Session._help,
    "QUIT": Session._quit,
}
