"""A process that serves connections, on sockets that belong to the master.

Master and worker speak over a pair of sockets, a letter a message.  From the master:
``d`` accept no more and end with the last session, ``s`` end as soon as no command is
being worked off, ``l`` go on in new log files.  From the worker: ``r`` ready, ``d``
accepts no more.  A master that is gone means ``d``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smeconf.smtpd.admission import Admission, AdmissionLimits
from smeconf.smtpd.loader import Configuration
from smeconf.smtpd.log import ERROR
from smeconf.smtpd.plugin import Plugin
from smeconf.smtpd.protocol import Connections, SmtpProtocol
from smeconf.smtpd.stats import CONNECTIONS, CONNECTIONS_REFUSED, Stats
from smeconf.smtpd.tally import Tally

DRAIN, STOP, READY, REOPEN = b"d", b"s", b"r", b"l"

# How long a worker that was told to stop waits for commands that are under way.
STOP_SECONDS = 10.0
_TICK_SECONDS = 1.0
# A socket that was accepted becomes a connection within a few turns of the loop.
_ACCEPT_TURNS = 10


@dataclass(frozen=True, slots=True)
class Share:
    """What a worker shares with the others, and which slot of it is its own."""

    slot: int
    tally: Tally
    stats: Stats
    limits: AdmissionLimits


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's loop where it is installed, else the standard one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def run(
    configuration: Configuration,
    listeners: Sequence[socket.socket],
    channel: socket.socket,
    share: Share,
) -> None:
    """Serve until the master says otherwise.  Runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the master's business
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_Worker(configuration, channel, share).serve(listeners))


class _CountedConnections(Connections):
    """Connections of one of several processes, within limits for all of them."""

    def __init__(self, configuration: Configuration, share: Share) -> None:
        super().__init__(configuration, os.getpid())
        self._door = Admission(
            share.tally,
            share.slot,
            share.limits,
            configuration.relay_clients.has,
            configuration.log,
        )
        self._stats = share.stats

    def admit(self, remote: str) -> bytes | None:
        """Let a client in; return the reply that refuses it, None where it is in."""
        self._stats.count(CONNECTIONS)
        refusal = self._door.admit(remote)
        if refusal is not None:
            self._stats.count(CONNECTIONS_REFUSED)
        return refusal

    def released(self, remote: str) -> None:
        """Take note that a client that was let in is gone."""
        self._door.released(remote)

    def replied(self, replies: list[bytes]) -> None:
        """Take note of replies that are sent."""
        for one in replies:
            self._stats.count_reply(one)

    def tick(self) -> None:
        """Do what is to be done now and then."""
        self._door.tick()


class _Worker:
    def __init__(
        self, configuration: Configuration, channel: socket.socket, share: Share
    ) -> None:
        share.stats.serve_as(share.slot)
        for one in configuration.lists.values():
            one.measure(share.stats)
        self._connections = _CountedConnections(configuration, share)
        self._log = configuration.log
        self._channel = channel
        self._servers: list[asyncio.Server] = []
        self._ended = asyncio.Event()

    async def serve(self, listeners: Sequence[socket.socket]) -> None:
        """Accept and serve; return when all is over."""
        loop = asyncio.get_running_loop()
        factory: Callable[[], SmtpProtocol] = lambda: SmtpProtocol(self._connections)  # noqa: E731
        for listener in listeners:
            self._servers.append(await loop.create_server(factory, sock=listener))
        self._channel.setblocking(False)
        loop.add_reader(self._channel, self._on_message)
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        # Where whoever rotates logs signals every process.
        loop.add_signal_handler(signal.SIGUSR1, self._log.reopen)
        tasks = [loop.create_task(self._tick()), *self._start_plugins()]
        self._tell(READY)
        await self._ended.wait()
        for task in tasks:
            task.cancel()
        loop.remove_reader(self._channel)
        self._connections.configuration.resolver.close()

    def _start_plugins(self) -> list[asyncio.Task[None]]:
        loop = asyncio.get_running_loop()
        plugins = self._connections.configuration.plugins()
        return [
            loop.create_task(self._run_plugin(plugin))
            for plugin in plugins
            if type(plugin).run is not Plugin.run
        ]

    async def _run_plugin(self, plugin: Plugin) -> None:
        try:
            await plugin.run()
        except Exception as error:
            plugin.log_server(ERROR, f"error, {type(error).__name__}: {error}")

    def _on_message(self) -> None:
        try:
            message = self._channel.recv(1)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if message == STOP:
            self._stop()
        elif message == REOPEN:
            self._log.reopen()
        else:
            if not message:  # the master is gone
                asyncio.get_running_loop().remove_reader(self._channel)
            self._drain()

    def _drain(self) -> None:
        """Accept no more; end with the last session."""
        self._stop_accepting()
        self._tell(DRAIN)
        self._end_when_empty()

    def _stop(self) -> None:
        """Accept no more; end every session between two of its commands."""
        self._stop_accepting()
        self._connections.stop()
        self._end_when_empty()
        asyncio.get_running_loop().call_later(STOP_SECONDS, self._ended.set)

    def _end_when_empty(self, turns: int = _ACCEPT_TURNS) -> None:
        """End with the last connection, those that were just accepted among them."""
        if turns:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._end_when_empty, turns - 1)
        else:
            self._connections.when_empty(self._ended.set)

    def _stop_accepting(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    def _tell(self, message: bytes) -> None:
        try:
            self._channel.send(message)
        except OSError:
            pass  # the master is gone, which _on_message sees too

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._connections.close_idle(loop.time())
            self._connections.tick()
            self._log.tick()
