"""logging/logterse: one line for each message taken, and for each refusal.

Hooks     deny, queue_post

Tabs separate the fields, behind a backquote: the client's address, its host name, its
HELO name, sender, recipients, the plugin that refused (or ``queued``), the number of
its verdict (901 for good, 902 for now, 903 and 904 the same with disconnection), and
the text of the refusal or the Message-Id.  Statistics read this form: it does not
change.
"""

from __future__ import annotations

from smeconf.smtpd.hooks import Answer
from smeconf.smtpd.log import NOTICE, one_field
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Plugin
from smeconf.smtpd.state import Connection


class Logterse(Plugin):
    """Writes the line."""

    def hook_deny(self, connection: Connection, plugin: str, answer: Answer) -> None:
        """A plugin refused."""
        number = str(answer.verdict.value)
        text = answer.log_text or answer.text
        self._write(connection, plugin, number, text.replace("\n", "; "))

    def hook_queue_post(self, connection: Connection, message: Message) -> None:
        """A message is safe in its queue."""
        self._write(connection, "queued", "", message.header("message-id") or "")

    def _write(self, connection: Connection, *verdict: str) -> None:
        transaction = connection.transaction
        sender = recipients = ""
        if transaction is not None:
            sender = f"<{transaction.sender}>"
            recipients = ",".join(f"<{one}>" for one in transaction.recipients)
        fields = (
            connection.remote,
            f"[{connection.remote}]",
            connection.hello,
            sender,
            recipients,
            *verdict,
        )
        self.log(connection, NOTICE, "` " + "\t".join(map(one_field, fields)))
