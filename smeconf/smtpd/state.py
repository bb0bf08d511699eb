"""What is known of a connection and of the message on it: what plugins share.

Facts are typed fields, not notes by string key.  What belongs to one message lies on
the transaction and ends with it: nothing leaks into the next message.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from smeconf.smtpd.address import Address
from smeconf.smtpd.message_log import Findings

if TYPE_CHECKING:
    from smeconf.smtpd.message import Message
    from smeconf.smtpd.plugin import RejectType


@dataclass(frozen=True, slots=True)
class Grievance:
    """Why a client is naughty: a refusal that was put off.

    ``plugin`` found it; ``text`` is for the client; ``reject_type`` is how that
    plugin wanted it; ``spares_role_accounts`` lets mail to postmaster and the like
    through all the same.
    """

    plugin: str
    text: str
    reject_type: RejectType
    spares_role_accounts: bool = False


class Transaction:
    """One message, from MAIL to its end.

    ``whitelisted_sender``: the sender is on the whitelist; ``message`` is there from
    DATA on; ``utf8``: it was announced as SMTPUTF8 (RFC 6531).
    """

    __slots__ = (
        *("grievances", "message", "recipients", "sender", "utf8"),
        "whitelisted_sender",
    )

    def __init__(self, sender: Address, *, utf8: bool = False) -> None:
        self.sender = sender
        self.utf8 = utf8
        self.recipients: list[Address] = []
        self.message: Message | None = None
        self.grievances: list[Grievance] = []
        self.whitelisted_sender = False


class Connection:
    """One client, from connect to disconnect.

    ``remote`` is its address as text, an IPv4 client of an IPv6 socket as IPv4;
    ``relay_client`` says that it may send anywhere; ``hook`` is the hook that runs
    now.
    """

    __slots__ = (
        "_address",
        "_grievances",
        "auth_failures",
        "findings",
        "greeted_as",
        "hello",
        "hook",
        "id",
        "local_port",
        "relay_client",
        "remote",
        "tls",
        "transaction",
        "unrecognized_commands",
        "user",
        "whitelisted_host",
    )

    def __init__(self, id: str, remote: str, local_port: int) -> None:
        self.id = id
        self.remote = remote.removeprefix("::ffff:") if "." in remote else remote
        self.local_port = local_port
        self.hello = ""  # the name that the client gave
        self.greeted_as = ""  # HELO or EHLO
        self.hook = "connect"
        self.findings = Findings()
        self.transaction: Transaction | None = None
        self.tls = ""  # version and cipher, where the connection is encrypted
        self.user = ""  # the name that the client logged in with
        self.relay_client = False
        self.whitelisted_host = False
        self.auth_failures = 0
        self._grievances: list[Grievance] = []
        self.unrecognized_commands = 0
        self._address: IPv4Address | IPv6Address | None = None

    @property
    def address(self) -> IPv4Address | IPv6Address:
        """The client's address, for those that reckon with it."""
        if self._address is None:
            self._address = ip_address(self.remote.partition("%")[0])
        return self._address

    @property
    def grievances(self) -> list[Grievance]:
        """The refusals that were put off: of the client, then of its message."""
        if self.transaction is None:
            return self._grievances
        return self._grievances + self.transaction.grievances

    def complain(self, grievance: Grievance) -> None:
        """Put a refusal off.  One that was found within a message ends with it."""
        if self.transaction is None:
            self._grievances.append(grievance)
        else:
            self.transaction.grievances.append(grievance)

    def log_in(self, user: str) -> None:
        """Take note of who this is: one whom we know may send anywhere, and what was
        held against the address is forgotten."""
        self.user = user
        self.relay_client = True
        self._grievances.clear()

    @property
    def is_immune(self) -> bool:
        """Whether checks pass this client or message over: it may relay, or it or
        its sender is on the whitelist."""
        return (
            self.relay_client
            or self.whitelisted_host
            or (self.transaction is not None and self.transaction.whitelisted_sender)
        )
