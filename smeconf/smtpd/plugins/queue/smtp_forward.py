"""queue/smtp-forward: hand mail to another SMTP server.

Hook      queue
Argument  HOST ...              servers by name or address, the later ones for when
                                those before fail: HOST, HOST:PORT, [IPv6]:PORT; the
                                form HOST PORT is known too; in all at most six words
Options   timeout 60            seconds for each step; the end of data may take thrice
          tls may               encryption: no, may (where offered), must, verify (with
                                a certificate that the system trusts)
          connections 0         how many are kept for the next message, for each server
                                and worker
          login PATH            a file of logins, below the root: HOST:PORT, name and
                                password, a tab between
          login_in_clear 0      1: log in without encryption too
          xclient 0             1: tell the server of our client, where it takes XCLIENT
          routes 0              1: send what smtproutes names, pass the rest on
File      smtproutes            servers by the recipient's domain, DOMAIN:HOST:PORT
          rcpthosts             our domains, which a route without a domain spares
From      qpsmtpd{QueueMethod}       smtp-forward
          qpsmtpd{QueueTarget}       HOST:PORT ...
          qpsmtpd{QueueTimeout}      timeout
          qpsmtpd{QueueTLS}          tls
          qpsmtpd{QueueConnections}  connections
          domains{…}{MailServer}     a route

The client is told 250 only when the next server took the message for every recipient.
The message is sent when all recipients were accepted, else not at all: one that is
refused for good with others accepted is put off, since the client was told that all
were taken.  Recipients on several servers are accepted by all of these before any of
them gets the message.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from smeconf.smtpd.address import Address
from smeconf.smtpd.client import (
    Envelope,
    Refused,
    Target,
    Terms,
    Unreachable,
    parse_target,
    parse_tls_policy,
)
from smeconf.smtpd.delivery import Delivery, Pool
from smeconf.smtpd.hooks import DECLINED, Answer, deny, denysoft, ok
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Context, Plugin, argument, lines, option
from smeconf.smtpd.routes import Route, Routes, parse_route
from smeconf.smtpd.state import Connection, Transaction
from smeconf.smtpd.taken import Taken

# Enhanced codes of the other server's lines: our own reply brings its own.
_ENHANCED = re.compile(r"(^| / )[245]\.\d{1,3}\.\d{1,3} ")
_NOT_READY = "The next server is not ready, try again later"
_NO_ANSWER = "The next server does not answer, try again later"
_SOME_REFUSED = "Not every recipient is accepted by the next server"


class SmtpForward(Plugin):
    """Forwards by SMTP."""

    @dataclass(frozen=True)
    class Settings:
        """Where to, and how."""

        host: str = argument(0, "")
        second: str = argument(1, "")
        third: str = argument(2, "")
        fourth: str = argument(3, "")
        fifth: str = argument(4, "")
        sixth: str = argument(5, "")
        timeout: int = option(60)
        tls: str = option("may", parse_tls_policy)
        connections: int = option(0)
        login: str = option("")
        login_in_clear: int = option(0)
        xclient: int = option(0)
        routes: int = option(0)
        smtproutes: tuple[Route, ...] = lines("smtproutes", parse_route)
        rcpthosts: tuple[str, ...] = lines("rcpthosts", str)

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        super().__init__(name, settings, context)
        words = (
            *(settings.host, settings.second, settings.third),
            *(settings.fourth, settings.fifth, settings.sixth),
        )
        self.targets = _targets_of(" ".join(words))
        if not self.targets and not settings.routes:
            raise ValueError("needs a host")
        self._routes = Routes(settings.smtproutes, settings.rcpthosts)
        terms = Terms(
            me=context.me,
            timeout=settings.timeout,
            tls=settings.tls,
            logins=self._read_logins(),
            login_in_clear=bool(settings.login_in_clear),
            xclient=bool(settings.xclient),
        )
        self._pool = Pool(terms, settings.connections)
        self._taken = Taken()

    def prepare(self, uid: int, gid: int) -> None:
        """Leave the logins for the filter's user, who must read them on a reload."""
        if not self.settings.login or uid == os.geteuid():
            return
        with suppress(FileNotFoundError), open(self._login_path, "rb") as file:
            _write_private(self._login_copy, file.read(), uid, gid)

    async def run(self) -> None:
        """Hang up connections that are not needed."""
        await self._pool.close_stale()

    async def hook_queue(self, connection: Connection, message: Message) -> Answer:
        """Forward the message; accept it when the other server did."""
        transaction = connection.transaction
        assert transaction is not None
        taken = self._taken.recipients(transaction.sender, message)
        groups, others = self._groups(transaction.recipients, taken)
        if not groups and others:
            return DECLINED
        # In a task of its own, as time limits need one.
        return await asyncio.ensure_future(
            self._forward(connection, transaction, message, groups, others)
        )

    def _groups(
        self, recipients: Sequence[Address], taken: frozenset[Address]
    ) -> tuple[dict[tuple[Target, ...], list[Address]], list[Address]]:
        """Return the recipients by the servers to try, and those of other plugins;
        those who have the message already are in neither."""
        groups: dict[tuple[Target, ...], list[Address]] = {}
        others = []
        for recipient in recipients:
            route = self._routes.find(recipient.domain) if self._routes else None
            if route is None and self.settings.routes:
                others.append(recipient)
            elif recipient not in taken:
                targets = self.targets if route is None else (route,)
                groups.setdefault(targets, []).append(recipient)
        return groups, others

    async def _forward(
        self,
        connection: Connection,
        transaction: Transaction,
        message: Message,
        groups: dict[tuple[Target, ...], list[Address]],
        others: list[Address],
    ) -> Answer:
        deliveries = [
            Delivery(self._pool, targets, _envelope(connection, message, whom))
            for targets, whom in groups.items()
        ]
        said: list[str] = []
        done: list[Delivery] = []
        try:
            for one in deliveries:
                await one.begin(asks_data=len(deliveries) == 1)
            for one in deliveries:
                (reply,) = await one.send(message)
                done.append(one)
                said.append(reply.text)
                self.log_pass(connection, f"{one.where}: {reply.text}")
        except Refused as refused:
            self.log_error(connection, str(refused))
            answer = self._refusal(connection, one.envelope, refused)
        except Unreachable as error:
            self.log_error(connection, str(error))
            answer = denysoft(_NOT_READY if error.is_answer else _NO_ANSWER)
        else:
            return self._accept(transaction, message, deliveries, others, said)
        finally:
            for one in deliveries:
                one.abandon()
        if not done:
            return answer
        # Some have it, so "never" would not be true of all.
        self._remember(transaction, message, done)
        return denysoft(answer.text)

    def _accept(
        self,
        transaction: Transaction,
        message: Message,
        done: list[Delivery],
        others: list[Address],
        said: list[str],
    ) -> Answer:
        if others:
            # The plugins behind serve the rest; where they fail, all of it comes again.
            self._remember(transaction, message, done)
            transaction.recipients = others
            return DECLINED
        self._taken.forget(transaction.sender, message)
        return ok("Queued! " + (" / ".join(said) or "before, for all recipients"))

    def _remember(
        self, transaction: Transaction, message: Message, done: list[Delivery]
    ) -> None:
        recipients = [r for one in done for r in one.envelope.recipients]
        self._taken.remember(transaction.sender, message, recipients)

    def _refusal(
        self, connection: Connection, envelope: Envelope, refused: Refused
    ) -> Answer:
        if refused.is_final:
            return deny(_ENHANCED.sub(r"\1", refused.text))
        final = refused.refused_for_good(envelope.recipients)
        if not final:
            return denysoft(_NOT_READY)
        whom = ", ".join(map(str, final))
        self.log_error(connection, f"refused for good, others not: {whom}")
        return denysoft(f"{_SOME_REFUSED}: {whom}")

    @property
    def _login_path(self) -> str:
        return os.path.join(self.context.root, self.settings.login)

    @property
    def _login_copy(self) -> str:
        name = "." + os.path.basename(self.settings.login)
        return os.path.join(self.context.spool, name)

    def _read_logins(self) -> dict[Target, tuple[str, str]]:
        """Return name and password by server.  Raises ValueError, without them."""
        if not self.settings.login:
            return {}
        text = ""
        for path in (self._login_path, self._login_copy):
            with suppress(FileNotFoundError, PermissionError):
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                break
        logins = {}
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip() or line.startswith("#"):
                continue
            words = line.split("\t", 2)
            if len(words) != 3:
                why = "is HOST:PORT, name and password, a tab between"
                raise ValueError(f"{self._login_path}:{number}: {why}")
            logins[parse_target(words[0], 25)] = (words[1], words[2])
        return logins


def _envelope(
    connection: Connection, message: Message, recipients: list[Address]
) -> Envelope:
    transaction = connection.transaction
    assert transaction is not None
    return Envelope(
        transaction.sender,
        tuple(recipients),
        size=message.size + sum(map(len, message.added_headers)),
        utf8=transaction.utf8,
        eight_bit=not all(piece.isascii() for piece in message.pieces()),
        client=(connection.remote, connection.hello),
    )


def _targets_of(text: str) -> tuple[Target, ...]:
    """Read servers, blanks or commas between; a number is the port of the one before.

    Raises ValueError.
    """
    targets: list[Target] = []
    for word in text.replace(",", " ").split():
        if word.isascii() and word.isdigit() and targets:
            before = targets.pop()
            word = f"[{before.host}]:{word}"
        targets.append(parse_target(word, 25))
    if any(target.path for target in targets):
        raise ValueError("needs hosts; a socket is for queue/lmtp")
    return tuple(targets)


def _write_private(path: str, data: bytes, uid: int, gid: int) -> None:
    """Write a file that its user alone can read, whatever stood in its place."""
    beside = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        os.unlink(beside)
    with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
        os.fchown(file.fileno(), uid, gid)
        file.write(data)
    os.rename(beside, path)
