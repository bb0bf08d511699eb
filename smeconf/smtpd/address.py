"""Addresses of the envelope (RFC 5321, 4.1.2), strictly.

Strict on purpose: a form that we read one way and the next server another is how
filters are made to relay.  Source routes are read and dropped (RFC 5321, appendix C).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

# Letters beyond ASCII as RFC 6531, 3.3 has them: not C1, nor what is no character.
_UTF8 = "\u00a0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff"
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_UTF8}-]+"
_ALNUM = rf"A-Za-z0-9_{_UTF8}"
_LABEL = rf"[{_ALNUM}](?:[{_ALNUM}-]*[{_ALNUM}])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_MAILBOX = re.compile(
    rf"""
    (?: @{_DOMAIN} (?: , @{_DOMAIN} )* : )?                  # a source route
    (?: (?P<dotted> {_ATOM} (?: \.{_ATOM} )* )
      | "(?P<quoted> (?: [ !\x23-\x5b\x5d-\x7e{_UTF8}] | \\[ -~] )*)" )
    (?: @ (?: (?P<domain> {_DOMAIN} ) | \[ (?P<literal> [0-9A-Za-z:.]+ ) \] ) )?
    """,
    re.VERBOSE,
)
_QUOTED_PAIR = re.compile(r"\\(.)")
_DOTTED = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")

# Of these every domain takes mail, so that its people can be told (RFC 2142).
ROLE_ACCOUNTS = frozenset({"postmaster", "abuse", "mailer-daemon", "root"})


class AddressError(ValueError):
    """A text that is no address; the message suits a reply."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: ``local`` without quotes, ``domain`` in lower case.

    The null sender has neither; ``postmaster`` may stand without a domain.  An
    address literal keeps its brackets.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        if not self.domain:
            return self.local
        if _DOTTED.fullmatch(self.local):
            return f"{self.local}@{self.domain}"
        quoted = self.local.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}"@{self.domain}'

    @property
    def is_null(self) -> bool:
        """Whether this is the null sender of bounces."""
        return not self.local and not self.domain

    @property
    def is_role_account(self) -> bool:
        """Whether this is one of the names that people report trouble to."""
        return self.local.lower() in ROLE_ACCOUNTS


NULL = Address("", "")


def parse_path(text: str) -> Address:
    """Read what stands between ``<`` and ``>`` of a MAIL or RCPT command.

    Raises AddressError saying what is wrong.
    """
    if not text:
        return NULL
    if len(text.encode("utf-8", "surrogateescape")) > 254:
        raise AddressError("the address is too long")  # RFC 5321, 4.5.3.1.3
    match = _MAILBOX.fullmatch(text)
    if match is None:
        raise AddressError("the address cannot be read")
    local = match["dotted"]
    if local is None:
        local = _QUOTED_PAIR.sub(r"\1", match["quoted"])
    if not local or len(local.encode("utf-8", "surrogateescape")) > 64:
        raise AddressError("the local part is empty or too long")
    if match["literal"] is not None:
        return Address(local, _literal(match["literal"]))
    domain = (match["domain"] or "").lower()
    if not domain and local.lower() != "postmaster":
        raise AddressError("the address has no domain")
    if any(len(label) > 63 for label in domain.split(".")):
        raise AddressError("the domain has a label that is too long")
    return Address(local, domain)


def _literal(text: str) -> str:
    """Return an address literal in one spelling (RFC 5321, 4.1.3)."""
    version = 6 if text[:5].lower() == "ipv6:" else 4
    try:
        if version == 6:
            return f"[IPv6:{ipaddress.IPv6Address(text[5:])}]"
        return f"[{ipaddress.IPv4Address(text)}]"
    except ValueError:
        raise AddressError("the address literal cannot be read") from None
