"""relay: say which clients may send to any domain.

Hooks     connect, rcpt
Options   only 0                1: accept mail from relay clients, and from no one else
Files     relayclients          addresses, prefixes that end in a dot, or networks
          norelayclients        exceptions from these
From      qpsmtpd{RelayRequiresAuth}            enabled|disabled
          qpsmtpd{UnauthenticatedRelayClients}  addresses, separated by commas
          networks{…}{RelayRequiresAuth}        enabled|disabled

It decides nothing by itself: rcpt_ok accepts any recipient from a relay client, and
most checks pass it over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smeconf.smtpd.address import Address
from smeconf.smtpd.address_list import AddressList, parse_entry
from smeconf.smtpd.hooks import DECLINED, OK, Answer, deny
from smeconf.smtpd.plugin import Context, Plugin, lines, option
from smeconf.smtpd.state import Connection


class Relay(Plugin):
    """Marks relay clients."""

    @dataclass(frozen=True)
    class Settings:
        """Who may relay."""

        only: int = option(0)
        clients: tuple[str, ...] = lines("relayclients", parse_entry)
        exceptions: tuple[str, ...] = lines("norelayclients", parse_entry)

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        super().__init__(name, settings, context)
        self._clients = AddressList(settings.clients, settings.exceptions)

    def hook_connect(self, connection: Connection) -> Answer:
        """Look the client up."""
        connection.relay_client = self._clients.has(connection.remote)
        if connection.relay_client:
            self.log_pass(connection, "relay client")
        else:
            self.log_skip(connection, "no relay client")
        return DECLINED

    def hook_rcpt(self, connection: Connection, recipient: Address) -> Answer:
        """With ``only``, decide by that alone."""
        if not self.settings.only:
            return DECLINED
        return OK if connection.relay_client else deny("Relaying denied")
