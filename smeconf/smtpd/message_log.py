"""The log of messages for programs: an object of JSON a line, for each message taken
and for each refusal, with every plugin's verdict on it.

The verdicts are what plugins log, by their first words: pass, fail, skip, error.  They
are collected on the connection as they are logged.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from smeconf.smtpd.log_targets import Target

if TYPE_CHECKING:
    from smeconf.smtpd.hooks import Answer
    from smeconf.smtpd.message import Message
    from smeconf.smtpd.state import Connection, Transaction

_NOTICE = 5
_VERDICT = re.compile(r"(pass|fail|skip|error)\b[,:]? ?(.*)", re.DOTALL)
# What one client can have us remember.
_MAX_FINDINGS = 200


class Findings:
    """What plugins logged of a connection, and of the message that is on it now."""

    __slots__ = ("_of_connection", "_of_message", "_transaction")

    def __init__(self) -> None:
        self._of_connection: list[tuple[str, str, str]] = []
        self._of_message: list[tuple[str, str, str]] = []
        self._transaction: Transaction | None = None

    def add(
        self, transaction: Transaction | None, plugin: str, hook: str, text: str
    ) -> None:
        """Note what a plugin logged; what belongs to an earlier message goes."""
        if transaction is not self._transaction:
            self._of_message.clear()
            self._transaction = transaction
        found = self._of_connection if transaction is None else self._of_message
        if len(found) < _MAX_FINDINGS:
            found.append((plugin, hook, text))

    def verdicts(self, transaction: Transaction | None) -> list[dict[str, str]]:
        """Return the verdicts on the connection, and on a message of it."""
        found = self._of_connection
        if transaction is self._transaction:
            found = found + self._of_message
        return [
            {"plugin": plugin, "hook": hook, "result": match[1], "text": match[2]}
            for plugin, hook, text in found
            if (match := _VERDICT.match(text))
        ]


class MessageLog:
    """Writes the objects to ``target``."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def queued(
        self, connection: Connection, message: Message, text: str, findings: Findings
    ) -> None:
        """A message is safe in its queue; ``text`` is what the queue said of it."""
        self._write(
            connection,
            findings,
            outcome="queued",
            size=message.size,
            message_id=message.header("message-id") or "",
            text=text,
        )

    def refused(
        self, connection: Connection, plugin: str, answer: Answer, findings: Findings
    ) -> None:
        """A plugin refused the client, or something that it sent."""
        self._write(
            connection,
            findings,
            outcome="refused",
            hook=connection.hook,
            plugin=plugin,
            verdict=answer.verdict.name,
            text=answer.log_text or answer.text,
        )

    def _write(
        self, connection: Connection, findings: Findings, **outcome: Any
    ) -> None:
        transaction = connection.transaction
        entry: dict[str, Any] = {
            "time": round(time.time(), 3),
            "session": connection.id,
            "remote": connection.remote,
            "port": connection.local_port,
            "hello": connection.hello,
            "user": connection.user,
            "tls": connection.tls,
            "relay_client": connection.relay_client,
        }
        if transaction is not None:
            entry["sender"] = str(transaction.sender)
            entry["recipients"] = [str(one) for one in transaction.recipients]
        entry |= outcome
        entry["verdicts"] = findings.verdicts(transaction)
        # In ASCII: whatever a client sent, one line stays one, and harmless.
        line = json.dumps(entry).replace("\x7f", "\\u007f")
        self.target.write(_NOTICE, line)
