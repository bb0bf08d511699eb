"""The conversation with one client: commands in, replies out (RFC 5321).

A session knows no socket: the protocol hands it lines and message data, so that the
same session can be played without a network.  Commands are coroutines, since their
hooks may wait for a name server or a disk.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from smeconf.smtpd.commands import CommandError, parse_mail, parse_rcpt
from smeconf.smtpd.data import DataDecoder
from smeconf.smtpd.hooks import Answer, Verdict, denysoft
from smeconf.smtpd.loader import Configuration
from smeconf.smtpd.log import ERROR
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Plugin
from smeconf.smtpd.replies import denial_reply, refusal_of, reply
from smeconf.smtpd.state import Connection, Transaction

_BAD_SEQUENCE = "5.5.1"


class Session:
    """One client, from greeting to QUIT.

    ``closing`` says that the connection ends once the reply is sent; ``is_receiving``
    that what arrives is message data, not commands.
    """

    def __init__(
        self, configuration: Configuration, id: str, remote: str, local_port: int
    ) -> None:
        self.configuration = configuration
        self.connection = Connection(id, remote, local_port)
        self.plugins = configuration.plugins_for(self.connection.remote)
        self.closing = False
        self._decoder: DataDecoder | None = None
        self._spool_failed = False

    @property
    def is_receiving(self) -> bool:
        """Whether the client is sending a message."""
        return self._decoder is not None

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
        if not line.endswith(b"\r\n"):
            return reply(500, "5.5.2", "A line ends with CR LF")
        text = line[:-2].decode("utf-8", "surrogateescape")
        verb, _, argument = text.partition(" ")
        act = _COMMANDS.get(verb.upper())
        try:
            if act is None or not text.isprintable():
                return await self._unrecognized(text)
            return await act(self, argument)
        except CommandError as error:
            return reply(error.code, error.enhanced, error.text)

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
        settings = self.configuration.settings
        if hook == "helo":
            return reply(250, "", settings.me)
        limit = f"SIZE {settings.databytes}"
        return reply(
            250, "", settings.me, "PIPELINING", limit, "8BITMIME", "ENHANCEDSTATUSCODES"
        )

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
        connection.transaction = Transaction(command.sender)
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
        recipient = parse_rcpt(argument)
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
        if not transaction.recipients:
            raise CommandError(503, _BAD_SEQUENCE, "RCPT first")
        answer, plugin = await self.plugins.decide("data", connection)
        if answer.is_denial:
            denied = await self._deny("data", answer, plugin)
            await self._reset()
            return denied
        transaction.message = Message(self.configuration.spool)
        self._decoder = DataDecoder()
        self._spool_failed = False
        return reply(354, "", "Go ahead, end with a dot on a line of its own")

    def receive(self, data: bytes) -> bytes | None:
        """Take message data; return what stood behind its end, None before that."""
        decoder, message = self._decoder, self._message
        assert decoder is not None
        piece, rest = decoder.feed(data)
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
        """Return the reply to a message whose end was received."""
        assert self._decoder is not None
        decoder, self._decoder = self._decoder, None
        if decoder.has_bare_newline:
            answer = reply(550, "5.6.0", "A bare CR or LF in the message")
        elif self._is_too_big(self._message.size):
            answer = reply(552, "5.3.4", "Message too big!")
        elif self._spool_failed:
            answer = reply(452, "4.3.1", "No room for the message, try again later")
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
        protocol = "ESMTP" if connection.greeted_as == "EHLO" else "SMTP"
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
        return standard

    async def _help(self, argument: str) -> bytes:
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


_COMMANDS: dict[str, Callable[[Session, str], Awaitable[bytes]]] = {
    "HELO": Session._helo,
    "EHLO": Session._ehlo,
    "MAIL": Session._mail,
    "RCPT": Session._rcpt,
    "DATA": Session._data,
    "RSET": Session._rset,
    "NOOP": Session._noop,
    "VRFY": Session._vrfy,
    "HELP": Session._help,
    "QUIT": Session._quit,
}
