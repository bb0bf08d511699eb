"""Bytes from a socket to a session's commands, and its replies back.

A protocol, not a stream with a reader coroutine: what a client sent is worked off as
it arrives, and the replies of a pipelined group leave in one write.  A command's
coroutine is run at once, and becomes a task only when it really waits; most never do.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, cast

from smeconf.smtpd.loader import Configuration
from smeconf.smtpd.log import ERROR, NOTICE
from smeconf.smtpd.replies import reply
from smeconf.smtpd.session import Session

if TYPE_CHECKING:
    import ssl

# What a client may send ahead while a hook waits, before we stop reading from it.
_MAX_WAITING_BYTES = 256 * 1024
# How many commands of one client are worked off before others have their turn.
_COMMANDS_A_TURN = 100
_HANDSHAKE_SECONDS = 30.0

Command = Coroutine[Any, Any, bytes]


class Connections:
    """The connections of one process, and the configuration that new ones get."""

    def __init__(self, configuration: Configuration, process_id: int) -> None:
        self.configuration = configuration
        self.stopping = False
        self.open: set[SmtpProtocol] = set()
        self._on_empty: Callable[[], None] | None = None
        self._process_id = process_id
        self._count = 0

    def next_id(self) -> str:
        """Return the id of a new session."""
        self._count += 1
        return f"{self._process_id}.{self._count}"

    def admit(self, remote: str) -> bytes | None:
        """Let a client in; return the reply that refuses it, None where it is in."""
        return None

    def released(self, remote: str) -> None:
        """Take note that a client that was let in is gone."""

    def replied(self, replies: list[bytes]) -> None:
        """Take note of replies that are sent."""

    def forget(self, protocol: SmtpProtocol) -> None:
        """Take note that a connection is over and done with."""
        if protocol.admitted:
            self.released(protocol.admitted)
            protocol.admitted = ""
        self.open.discard(protocol)
        if self._on_empty is not None and not self.open:
            self._on_empty()

    def when_empty(self, act: Callable[[], None]) -> None:
        """Call ``act`` when no connection is left; at once, if there is none."""
        self._on_empty = act
        if not self.open:
            act()

    def close_idle(self, now: float) -> None:
        """Close those that are too slow; ``now`` in loop seconds."""
        limit = now - self.configuration.settings.timeout_seconds
        for protocol in list(self.open):
            if protocol.last_step < limit:
                protocol.close("4.4.2", "Too long silent, closing")
            elif protocol.is_too_slow(now):
                protocol.close("4.4.2", "The message comes too slowly, closing")

    def stop(self) -> None:
        """End all connections, each as soon as it is between two commands, the text
        of a message being part of DATA."""
        self.stopping = True
        for protocol in list(self.open):
            if not protocol.is_receiving:
                protocol.close("4.3.2", "Shutting down, try again later")


class SmtpProtocol(asyncio.Protocol):
    """One connection."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self.admitted = ""  # the address that counts until the connection is over
        self._waiting: bytes = b""
        self._replies: list[bytes] = []
        self._task: asyncio.Task[bytes] | None = None
        self._client_ended = False
        self._is_paused = False
        self._is_scheduled = False  # to go on with what is waiting, at the next turn
        self._received = 0  # bytes of the message that is being received
        self._receiving_since = 0.0
        # When the last command, or piece of a message, was complete: a client that
        # sends a letter now and then is as good as silent.
        self.last_step = self._loop.time()

    @property
    def is_receiving(self) -> bool:
        """Whether the client is sending a message."""
        return self._session is not None and self._session.is_receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet a new client."""
        peer = transport.get_extra_info("peername")
        if not peer:  # it is gone already
            cast(asyncio.Transport, transport).abort()
            return
        connections = self._connections
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none
        refusal = connections.admit(peer[0])
        if refusal is not None:
            self._transport.write(refusal)
            self._transport.close()
            return
        self.admitted = peer[0]
        connections.open.add(self)
        port = transport.get_extra_info("sockname")[1]
        self._session = Session(
            connections.configuration, connections.next_id(), peer[0], port
        )
        self._session.connection.tls = _description(transport)
        self._run(self._session.greet())
        self._work()

    def data_received(self, data: bytes) -> None:
        """Work off what arrived, or keep it while a command waits."""
        self._waiting = self._waiting + data if self._waiting else data
        if self._task is None and not self._is_scheduled:
            self._work()
        elif len(self._waiting) > _MAX_WAITING_BYTES and self._transport:
            self._is_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more; it may still read the replies that are due."""
        self._client_ended = True
        return self._task is not None

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read its replies."""
        if self._transport and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on, now that the replies are on their way."""
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Clean up, once the command that is being worked off has ended."""
        self._transport = None
        self._waiting = b""
        if self._task is None:
            self._finish()

    def close(self, enhanced: str, text: str) -> None:
        """Say why, and end the connection, unless a command is being worked off."""
        session = self._session
        if self._task is not None or session is None or session.closing:
            return
        session.closing = True
        self._replies.append(reply(421, enhanced, text))
        self._flush()

    def is_too_slow(self, now: float) -> bool:
        """Tell whether a message comes at less than the least rate."""
        limits = self._connections.configuration.limits
        seconds = now - self._receiving_since
        return (
            self.is_receiving
            and self._task is None
            and seconds > limits.data_grace
            and self._received < limits.data_rate * seconds
        )

    def _work(self) -> None:
        """Work off what is here until a command waits, or others should have a turn."""
        session = self._session
        if session is None:
            return
        self._is_scheduled = False
        data, self._waiting = self._waiting, b""
        position, left = 0, _COMMANDS_A_TURN
        while position < len(data) and self._task is None and not session.closing:
            if session.is_receiving:
                rest = self._receive(session, data[position:] if position else data)
                data, position = rest or b"", 0
                continue
            end = data.find(b"\n", position) + 1
            if (end or len(data)) - position > session.max_line_bytes:
                self.close("4.5.2", "A line is too long")
                return
            if not end or not left:
                break
            left -= 1
            line, position = data[position:end], end
            self._run(session.command(line))
            if session.starts_tls:
                self._begin_tls(session)
                return
            if session.is_receiving:
                self._received, self._receiving_since = 0, self._loop.time()
        if position:
            self.last_step = self._loop.time()
        self._waiting = data[position:]
        self._flush()
        if self._task is not None or session.closing:
            return
        if not left and self._waiting:
            self._is_scheduled = True
            self._loop.call_soon(self._work)
        else:
            self._after_work(session)

    def _receive(self, session: Session, data: bytes) -> bytes | None:
        """Take message data; return what stood behind the end of the message."""
        self.last_step = self._loop.time()
        self._received += len(data)
        rest = session.receive(data)
        if rest is not None:
            self._run(session.end_of_data())
        return rest

    def _begin_tls(self, session: Session) -> None:
        """Turn on encryption; what came behind the command is thrown away unread."""
        context, transport = session.plugins.tls_context, self._transport
        if context is None or transport is None:
            return
        transport.pause_reading()  # until the handshake reads
        self._flush()
        self._task = self._loop.create_task(self._handshake(session, context))
        self._task.add_done_callback(self._resume)

    async def _handshake(self, session: Session, context: ssl.SSLContext) -> bytes:
        assert self._transport is not None
        try:
            transport = await self._loop.start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            )
        except (TimeoutError, OSError, EOFError) as error:
            # Never a word in the clear to one who thinks that he is encrypted.
            session.closing = True
            self._log_handshake(session, error)
            if self._transport is not None:
                self._transport.abort()
                self._transport = None
            return b""
        assert transport is not None
        self._transport = transport
        return await session.tls_started(_description(transport))

    def _log_handshake(self, session: Session, error: Exception) -> None:
        why = getattr(error, "reason", None) or str(error) or type(error).__name__
        line = f"{session.connection.id} (starttls) core: error, no handshake: {why}"
        self._connections.configuration.log.line(NOTICE, line)

    def _after_work(self, session: Session) -> None:
        if self._transport is None:
            return
        if self._client_ended:
            session.closing = True
            self._flush()
        elif self._connections.stopping and not session.is_receiving:
            self.close("4.3.2", "Shutting down, try again later")
        elif self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def _run(self, command: Command) -> None:
        """Run a command; keep its reply, or a task that goes on with it."""
        try:
            future = command.send(None)
        except StopIteration as stop:
            self._replies.append(stop.value)
        except Exception as error:
            self._replies.append(self._bug(error))
        else:
            self._task = self._loop.create_task(_go_on(command, future))
            self._task.add_done_callback(self._resume)

    def _resume(self, task: asyncio.Task[bytes]) -> None:
        """A command that had to wait is done: go on with what arrived meanwhile."""
        self._task = None
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._replies.append(self._bug(error))
        else:
            self._replies.append(task.result())
        self.last_step = self._loop.time()
        if self._transport is None:
            self._finish()
        else:
            self._work()

    def _flush(self) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._replies:
            transport.write(b"".join(self._replies))
            self._connections.replied(self._replies)
            self._replies.clear()
        if self._session is not None and self._session.closing:
            self._waiting = b""
            transport.close()

    def _finish(self) -> None:
        """Tell the plugins that the client is gone, then forget the connection."""
        session, self._session = self._session, None
        if session is not None:
            self._run(session.disconnected())
        if self._task is None:
            self._connections.forget(self)

    def _bug(self, error: BaseException) -> bytes:
        """Log an error of ours; return the reply that ends the connection."""
        import traceback

        log = self._connections.configuration.log
        for line in traceback.format_exception(error):
            log.server(ERROR, line.rstrip())
        if self._session is not None:
            self._session.closing = True
        return reply(421, "4.3.0", "Internal failure, try again later")


@types.coroutine
def _go_on(command: Command, future: Any) -> Generator[Any, Any, bytes]:
    """Drive on a coroutine that was begun outside of a task and awaits ``future``."""
    try:
        while True:
            try:
                value = yield future
            except BaseException as error:
                future = command.throw(error)
            else:
                future = command.send(value)
    except StopIteration as stop:
        result: bytes = stop.value
        return result


def _description(transport: asyncio.BaseTransport) -> str:
    """Return version and cipher of an encrypted connection, else nothing."""
    tls = transport.get_extra_info("ssl_object")
    return f"{tls.version()} {tls.cipher()[0]}" if tls is not None else ""
