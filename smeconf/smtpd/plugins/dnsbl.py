"""dnsbl: refuse clients that IP block lists name.

Hook      connect
Options   reject 1              0 (log only), 1 (refuse at once) or naughty (refuse
                                later, when sender and recipient are known)
          reject_type perm      perm, temp, disconnect or temp_disconnect
          timeout 4             seconds for all lists together
Files     dnsbl_zones           zone, or zone:message, one a line
          dnsbl_allow           addresses that are not looked up
From      qpsmtpd{DNSBL}        enabled|disabled
          qpsmtpd{RBLList}      the lists, separated by commas

All lists are asked at once, and a listing by any of them counts.  A list that does not
answer, or that answers with an error, counts as nothing and is logged.  Every hour each
list is asked about its test points; one that lists 127.0.0.1, or has nothing but errors
to say, is set aside until it is well again (RFC 5782, 5).  Put off with
``naughty``, mail to postmaster and the like is still taken, so that people can ask why
they are refused.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from smeconf.mailauth.dnsbl import BlockList, examine, look_up
from smeconf.smtpd.address_list import AddressList, parse_entry
from smeconf.smtpd.hooks import DECLINED, Answer
from smeconf.smtpd.log import WARNING
from smeconf.smtpd.plugin import Context, Plugin, Policy, RejectType, lines, option
from smeconf.smtpd.state import Connection

_EXAMINE_SECONDS = 3600.0


class Dnsbl(Plugin):
    """Asks the block lists about each client."""

    @dataclass(frozen=True)
    class Settings:
        """What to ask, and what to make of it."""

        reject: Policy = option(Policy.REJECT)
        reject_type: RejectType = option(RejectType.PERM)
        timeout: int = option(4)
        zones: tuple[BlockList, ...] = lines("dnsbl_zones", BlockList.parse)
        allow: tuple[str, ...] = lines("dnsbl_allow", parse_entry)

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        super().__init__(name, settings, context)
        self._allowed = AddressList(settings.allow)
        self._lists: tuple[BlockList, ...] = settings.zones

    async def run(self) -> None:
        """Set lists aside, and take them back, by how they answer for themselves."""
        while self.settings.zones:
            health = await examine(
                self.resolver, self.settings.zones, self.settings.timeout
            )
            self._lists = tuple(one for one in health if health[one].is_usable)
            for one, found in health.items():
                if found.trouble:
                    what = "warning" if found.is_usable else "set aside"
                    self.log_server(WARNING, f"{what}: {one.name} {found.trouble}")
            await asyncio.sleep(_EXAMINE_SECONDS)

    async def hook_connect(self, connection: Connection) -> Answer:
        """Look the client up in all lists at once."""
        if connection.is_immune:
            self.log_skip(connection, "immune")
            return DECLINED
        if not self._lists:
            self.log_skip(connection, "no zones")
            return DECLINED
        if self._allowed.has(connection.remote):
            self.log_skip(connection, "in dnsbl_allow")
            return DECLINED
        found = await look_up(
            self.resolver,
            connection.address,
            self._lists,
            self.settings.timeout,
        )
        for trouble in found.troubles:
            self.log_error(connection, trouble)
        if found.listed:
            _, text = found.listed[0]
            return self.reject(connection, text, spares_role_accounts=True)
        self.log_pass(connection)
        return DECLINED
