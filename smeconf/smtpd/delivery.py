"""Getting one message to one of several next servers, over connections that are kept.

    pool = Pool(Terms(me="mx.test"), connections=4)
    delivery = Delivery(pool, [parse_target("next.test:25", 25)], envelope)
    await delivery.begin()             # MAIL and every RCPT were accepted
    replies = await delivery.send(message)

Until the dot that ends the message was sent, a connection that breaks is replaced by a
fresh one once, then by the next target; behind the dot nothing is tried again, since
the server may have the message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from smeconf.smtpd.client import (
    Envelope,
    Peer,
    Refused,
    Reply,
    Target,
    Terms,
    Unreachable,
)
from smeconf.smtpd.message import Message

_IDLE_SECONDS = 30.0
_DOWN_SECONDS = 30.0


class Pool:
    """Connections of one worker that wait for the next message, by their targets.

    ``connections`` is how many are kept for a target; 0: none.
    """

    def __init__(self, terms: Terms, connections: int = 0) -> None:
        self.terms = terms
        self._connections = connections
        self._idle: dict[Target, list[Peer]] = {}
        self._down: dict[Target, float] = {}

    async def get(self, target: Target) -> Peer:
        """Return a connection, one that waits if there is one.  Raises Unreachable."""
        while waiting := self._idle.get(target):
            peer = waiting.pop()
            is_stale = time.monotonic() - peer.idle_since > _IDLE_SECONDS
            if not is_stale and await peer.is_alive():
                peer.is_reused = True
                return peer
            peer.close()
        return await self.open(target)

    async def open(self, target: Target) -> Peer:
        """Return a fresh connection.  Raises Unreachable."""
        peer = Peer(target, self.terms)
        try:
            await peer.open()
        except Unreachable:
            self._down[target] = time.monotonic() + _DOWN_SECONDS
            raise
        self._down.pop(target, None)
        return peer

    def keep(self, peer: Peer) -> None:
        """Take back a connection between two messages."""
        waiting = self._idle.setdefault(peer.target, [])
        if len(waiting) >= self._connections:
            peer.quit()
            return
        peer.idle_since = time.monotonic()
        waiting.append(peer)

    def in_turn(self, targets: Sequence[Target]) -> list[Target]:
        """Return the targets in the order to try them: those that are down last."""
        now = time.monotonic()
        return sorted(targets, key=lambda target: self._down.get(target, 0.0) > now)

    async def close_stale(self) -> None:
        """Hang up what has waited too long, for ever; all of it when cancelled."""
        try:
            while True:
                await asyncio.sleep(_IDLE_SECONDS / 2)
                limit = time.monotonic() - _IDLE_SECONDS
                for target, waiting in self._idle.items():
                    for peer in [one for one in waiting if one.idle_since < limit]:
                        waiting.remove(peer)
                        peer.quit()
                    self._idle[target] = waiting
        finally:
            self.close()

    def close(self) -> None:
        """Hang up every connection that waits."""
        for waiting in self._idle.values():
            for peer in waiting:
                peer.quit()
        self._idle.clear()


class Delivery:
    """One message on its way to one of several servers.

    ``where`` names the one that is spoken to.
    """

    def __init__(
        self, pool: Pool, targets: Sequence[Target], envelope: Envelope
    ) -> None:
        self.envelope = envelope
        self.where = " ".join(map(str, targets))
        self._pool = pool
        self._left = pool.in_turn(targets)
        self._tries = 0
        self._peer: Peer | None = None

    async def begin(self, *, asks_data: bool = False) -> None:
        """Find a server that takes sender and recipients.

        Raises Refused, or the Unreachable of the last server.
        """
        while True:
            target = self._left[0]
            try:
                await self._begin_at(target, asks_data=asks_data)
            except Unreachable as error:
                self._give_up_on(target, error)
                continue
            self.where = str(target)
            return

    async def send(self, message: Message) -> list[Reply]:
        """Send the message; return the replies to its end (see Peer.send).

        Raises Refused, or the Unreachable of the last server.
        """
        while True:
            peer = self._peer
            assert peer is not None
            try:
                replies = await peer.send(message, len(self.envelope.recipients))
            except Unreachable as error:
                self.abandon()
                self._give_up_on(peer.target, error)
                await self.begin()
                continue
            except Refused:
                peer.has_refused = True
                self._release(peer)
                raise
            except BaseException:
                self.abandon()
                raise
            self._release(peer)
            return replies

    def abandon(self) -> None:
        """Give up what was begun: the server throws it away."""
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    async def _begin_at(self, target: Target, *, asks_data: bool) -> None:
        get = self._pool.open if self._tries else self._pool.get
        while True:
            peer = await get(target)
            try:
                await peer.begin(self.envelope, asks_data=asks_data)
            except Unreachable:
                peer.close()
                # It died while it waited: nothing of this message's doing.
                if peer.is_reused and not peer.has_answered_mail:
                    get = self._pool.open
                    continue
                raise
            except Refused:
                peer.has_refused = True
                self._release(peer)
                raise
            except BaseException:
                peer.close()
                raise
            self._peer = peer
            return

    def _release(self, peer: Peer) -> None:
        """Give a connection back, or hang up what can only go on with a message."""
        self._peer = None
        if peer.is_between_messages and not peer.is_closing:
            self._pool.keep(peer)
        else:
            # With it the server forgets whatever it accepted.
            peer.close()

    def _give_up_on(self, target: Target, error: Unreachable) -> None:
        """Leave a target to the next try.  Raises ``error`` where none is left."""
        if error.is_handed_over:
            raise error
        if error.is_worth_another_try and not self._tries:
            self._tries = 1
            return
        self._tries = 0
        self._left.remove(target)
        if not self._left:
            raise error
