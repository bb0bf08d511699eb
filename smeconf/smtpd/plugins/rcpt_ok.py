"""rcpt_ok: accept recipients of our own domains; the last plugin of the hook rcpt.

Hook      rcpt
Files     rcpthosts             our domains, one a line; .example.com: all below it
          me                      our host name

A relay client may send to any domain; a whitelist never grants that.  An address whose
local part holds a %, ! or @ is refused from all others, whatever its domain: a server
behind this one may read it as a route to somewhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smeconf.smtpd.address import Address
from smeconf.smtpd.hooks import OK, Answer, deny
from smeconf.smtpd.log import NOTICE
from smeconf.smtpd.plugin import Context, Plugin, lines
from smeconf.smtpd.state import Connection

_ROUTING = frozenset("%!@")


class RcptOk(Plugin):
    """Decides whom we take mail for."""

    ends_rcpt = True

    @dataclass(frozen=True)
    class Settings:
        """Our domains."""

        hosts: tuple[str, ...] = lines("rcpthosts", str.lower)
        me: tuple[str, ...] = lines("me", str.lower)

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        super().__init__(name, settings, context)
        hosts = (*settings.hosts, *settings.me)
        self._hosts = {host for host in hosts if not host.startswith(".")}
        self._suffixes = tuple(host for host in hosts if host.startswith("."))

    def hook_rcpt(self, connection: Connection, recipient: Address) -> Answer:
        """Accept or refuse a recipient."""
        if connection.relay_client:
            self.log_pass(connection, "relay client")
            return OK
        if self._is_ours(recipient.domain) and _ROUTING.isdisjoint(recipient.local):
            self.log_pass(connection, str(recipient))
            return OK
        self.log(connection, NOTICE, f"fail, relaying to {recipient}")
        return deny("Relaying denied")

    def _is_ours(self, domain: str) -> bool:
        # postmaster alone stands without a domain (RFC 5321, 4.5.1)
        return not domain or domain in self._hosts or domain.endswith(self._suffixes)
