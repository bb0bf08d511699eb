"""queue/null: take mail and throw it away.  For measuring only.

Hook      queue
From      qpsmtpd{QueueMethod}  null
"""

from __future__ import annotations

from smeconf.smtpd.hooks import Answer, ok
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Plugin
from smeconf.smtpd.state import Connection


class Null(Plugin):
    """Takes everything, keeps nothing."""

    def warnings(self) -> list[str]:
        """Say so."""
        return [f"{self.name}: mail is accepted and THROWN AWAY; for measuring only"]

    def hook_queue(self, connection: Connection, message: Message) -> Answer:
        """Accept."""
        return _GONE


_GONE = ok("Queued nowhere")
