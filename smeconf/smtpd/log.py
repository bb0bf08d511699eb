"""The filter's log: one line an event.

Form: ``PID.SESSION (hook) plugin: text``, as qpsmtpd's but for the session, since one
process serves many.  Whatever a client sent is made harmless: control characters are
written as escapes.  Where the lines go is the business of ``log_targets``.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from smeconf.smtpd.log_targets import Stream, Target

if TYPE_CHECKING:
    from smeconf.smtpd.message_log import MessageLog

CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = 2, 3, 4, 5, 6, 7

# C0 but for the tab that separates fields, DEL, C1, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")


class Log:
    """Writes lines of at most ``level`` (qpsmtpd's numbers: 3 errors … 7 debugging).

    ``target`` is where to; ``messages`` the log of messages beside it, if there is one.
    Both may be changed at any time.
    """

    __slots__ = ("level", "messages", "target")

    def __init__(self, level: int = INFO, target: Target | None = None) -> None:
        self.level = level
        self.target: Target = target or Stream()
        self.messages: MessageLog | None = None

    def line(self, level: int, text: str) -> None:
        """Write one line; a log that cannot be written does not stop the mail."""
        if level <= self.level:
            self.target.write(level, _UNSAFE.sub(_escape, text))

    def server(self, level: int, text: str) -> None:
        """Write a line that belongs to no session."""
        self.line(level, f"{os.getpid()} {text}")

    def tick(self) -> None:
        """Go on in a new file where the old one was moved away; called each second."""
        self.target.tick()
        if self.messages is not None:
            self.messages.target.tick()

    def reopen(self) -> None:
        """Go on in new files."""
        self.target.reopen()
        if self.messages is not None:
            self.messages.target.reopen()


def one_field(text: str) -> str:
    """Return ``text`` without tabs, for a line whose fields tabs separate."""
    return text.replace("\t", " ")


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]) & 0xFF:02x}"
