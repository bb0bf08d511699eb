"""count_unrecognized_commands: end connections that do not speak SMTP.

Hook      unrecognized_command
Argument  4                     how many unrecognized commands end the connection
"""

from __future__ import annotations

from dataclasses import dataclass

from smeconf.smtpd.hooks import DECLINED, Answer, Verdict
from smeconf.smtpd.log import NOTICE
from smeconf.smtpd.plugin import Plugin, argument
from smeconf.smtpd.state import Connection


class CountUnrecognizedCommands(Plugin):
    """Counts commands that nobody knows."""

    @dataclass(frozen=True)
    class Settings:
        """The limit."""

        limit: int = argument(0, 4)

    def hook_unrecognized_command(self, connection: Connection, line: str) -> Answer:
        """Close at the limit."""
        count = connection.unrecognized_commands
        if count < self.settings.limit:
            self.log_skip(connection, f"{count} unrecognized commands")
            return DECLINED
        # Not the line: one who logs in too early may have sent a password.
        self.log(connection, NOTICE, f"fail, {count} unrecognized commands")
        return Answer(
            Verdict.DENY_DISCONNECT,
            f"Closing connection, {count} unrecognized commands",
        )
