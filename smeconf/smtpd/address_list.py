"""Lists of client addresses: ``relayclients``, ``norelayclients``, ``dnsbl_allow``.

A line is a whole address, a prefix that ends in ``.`` or ``:`` (``192.168.1.``), or a
network in CIDR form, whose both ends belong to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from smeconf.smtpd.config import Directory


def parse_entry(text: str) -> str:
    """Return an entry of such a list.  Raises ValueError for what is none."""
    if text.endswith((".", ":")) and text != "::":
        parts = text[:-1].split(text[-1])
        good = (
            all(part.isdigit() and int(part) < 256 for part in parts)
            if text[-1] == "."
            else all(len(part) < 5 and _is_hex(part) for part in parts)
        )
        if not good or text == ":":
            raise ValueError(f"{text!r} is no beginning of an address")
        return text.lower()
    if "/" in text:
        return str(ip_network(text, strict=False))
    return str(ip_address(text))


class AddressList:
    """Entries and, stronger than they, exceptions."""

    def __init__(self, entries: Iterable[str], exceptions: Iterable[str] = ()) -> None:
        self._entries = _Matcher(entries)
        self._exceptions = _Matcher(exceptions)
        self.has = lru_cache(4096)(self._has)

    @classmethod
    def read(cls, directory: Directory, name: str, exceptions: str) -> AddressList:
        """Read both files.  Raises ConfigError naming a line that is no entry."""
        return cls(
            directory.parsed(name, parse_entry),
            directory.parsed(exceptions, parse_entry),
        )

    def _has(self, remote: str) -> bool:
        """Tell whether the address is in the list."""
        return self._entries.matches(remote) and not self._exceptions.matches(remote)


class _Matcher:
    def __init__(self, entries: Iterable[str]) -> None:
        self._whole: set[str] = set()
        self._prefixes: tuple[str, ...] = ()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            if "/" in entry:
                self._networks.append(ip_network(entry))
            elif entry.endswith((".", ":")) and entry != "::":
                self._prefixes += (entry,)
            else:
                self._whole.add(entry)

    def matches(self, remote: str) -> bool:
        if remote in self._whole or remote.startswith(self._prefixes):
            return True
        if not self._networks:
            return False
        address = ip_address(remote.partition("%")[0])
        return any(address in network for network in self._networks)


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in text)
