"""The filter's log: one line an event, to standard error.

Form: ``PID.SESSION (hook) plugin: text``, as qpsmtpd's but for the session, since one
process serves many.  Whatever a client sent is made harmless: control characters are
written as escapes.
"""

from __future__ import annotations

import os
import re

CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = 2, 3, 4, 5, 6, 7

# C0 but for the tab that separates fields, DEL, C1, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")


class Log:
    """Writes lines of at most ``level`` (qpsmtpd's numbers: 3 errors … 7 debugging)."""

    __slots__ = ("_file", "level")

    def __init__(self, level: int = INFO, file: int = 2) -> None:
        self.level = level
        self._file = file

    def line(self, level: int, text: str) -> None:
        """Write one line; a log that cannot be written does not stop the mail."""
        if level > self.level:
            return
        line = _UNSAFE.sub(_escape, text) + "\n"
        try:
            os.write(self._file, line.encode("utf-8"))
        except OSError:
            pass

    def server(self, level: int, text: str) -> None:
        """Write a line that belongs to no session."""
        self.line(level, f"{os.getpid()} {text}")


def one_field(text: str) -> str:
    """Return ``text`` without tabs, for a line whose fields tabs separate."""
    return text.replace("\t", " ")


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]) & 0xFF:02x}"
