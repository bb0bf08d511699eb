"""queue/lmtp: hand mail to a mailbox server by LMTP (RFC 2033).

Hook      queue
Argument  PLACE                 HOST:PORT, or unix:/PATH of a socket
Options   timeout 60            seconds for each step; the end of data may take thrice
          tls no                encryption: no, may, must, verify
          connections 0         how many are kept for the next message, for each worker
From      qpsmtpd{QueueMethod}       lmtp
          qpsmtpd{QueueTarget}       PLACE
          qpsmtpd{QueueTimeout}      timeout
          qpsmtpd{QueueTLS}          tls
          qpsmtpd{QueueConnections}  connections

The mailbox server answers for each recipient behind the message.  The client is told
250 when all have it.  Where some have it and some not, the client is asked to try again
later, and those who have it are left out then: this is remembered for an hour, by the
worker that served the first try.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from smeconf.smtpd.client import (
    Envelope,
    Refused,
    Reply,
    Terms,
    Unreachable,
    parse_target,
    parse_tls_policy,
)
from smeconf.smtpd.delivery import Delivery, Pool
from smeconf.smtpd.hooks import Answer, deny, denysoft, ok
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Context, Plugin, argument, option
from smeconf.smtpd.state import Connection, Transaction
from smeconf.smtpd.taken import Taken

_LATER = "The mailbox server is not ready, try again later"
_NO_ANSWER = "The mailbox server does not answer, try again later"


class Lmtp(Plugin):
    """Delivers by LMTP."""

    @dataclass(frozen=True)
    class Settings:
        """Where to, and how."""

        place: str = argument(0, "")
        timeout: int = option(60)
        tls: str = option("no", parse_tls_policy)
        connections: int = option(0)

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        super().__init__(name, settings, context)
        if not settings.place:
            raise ValueError("needs HOST:PORT or unix:/PATH")
        self._target = parse_target(settings.place, 24)
        terms = Terms(context.me, settings.timeout, settings.tls, lmtp=True)
        self._pool = Pool(terms, settings.connections)
        self._taken = Taken()

    async def run(self) -> None:
        """Hang up connections that are not needed."""
        await self._pool.close_stale()

    async def hook_queue(self, connection: Connection, message: Message) -> Answer:
        """Deliver the message; accept it when every recipient has it."""
        transaction = connection.transaction
        assert transaction is not None
        taken = self._taken.recipients(transaction.sender, message)
        recipients = tuple(r for r in transaction.recipients if r not in taken)
        if not recipients:
            return ok("Queued! before, for all recipients")
        envelope = Envelope(
            transaction.sender,
            recipients,
            size=message.size + sum(map(len, message.added_headers)),
            utf8=transaction.utf8,
            eight_bit=not all(piece.isascii() for piece in message.pieces()),
        )
        # In a task of its own, as time limits need one.
        return await asyncio.ensure_future(
            self._deliver(connection, transaction, message, envelope)
        )

    async def _deliver(
        self,
        connection: Connection,
        transaction: Transaction,
        message: Message,
        envelope: Envelope,
    ) -> Answer:
        delivery = Delivery(self._pool, [self._target], envelope)
        try:
            await delivery.begin()
            replies = await delivery.send(message)
        except Refused as refused:
            self.log_error(connection, str(refused))
            if refused.is_final and len(envelope.recipients) == len(
                transaction.recipients
            ):
                return deny(refused.text)
            final = refused.refused_for_good(envelope.recipients)
            whom = f" ({', '.join(map(str, final))})" if final else ""
            return denysoft(_LATER + whom)
        except Unreachable as error:
            self.log_error(connection, str(error))
            return denysoft(_NO_ANSWER)
        finally:
            delivery.abandon()
        if all(reply.is_good for reply in replies):
            self._taken.forget(transaction.sender, message)
            self.log_pass(connection, f"{delivery.where}: {replies[0].text}")
            return ok(f"Queued! {replies[0].text}")
        return self._tell_of_some(connection, transaction, message, envelope, replies)

    def _tell_of_some(
        self,
        connection: Connection,
        transaction: Transaction,
        message: Message,
        envelope: Envelope,
        replies: list[Reply],
    ) -> Answer:
        """Return the answer where not all have the message."""
        pairs = list(zip(envelope.recipients, replies, strict=True))
        for recipient, reply in pairs:
            if not reply.is_good:
                what = f"{self._target}: {recipient}: {reply.code} {reply.text}"
                self.log_error(connection, what)
        stored = [recipient for recipient, reply in pairs if reply.is_good]
        if stored:
            self._taken.remember(transaction.sender, message, stored)
        elif len(replies) == len(transaction.recipients) and all(
            reply.is_final for reply in replies
        ):
            return deny(replies[0].text)
        whom = ", ".join(str(r) for r, reply in pairs if not reply.is_good)
        return denysoft(f"Not every mailbox took it, try again later: {whom}")
