"""Who has a message already, of one that was taken for some recipients and not for all.

The client is then asked to send the whole again, and those who have it must not get it
twice.  The memory is one worker's: a second try that another worker serves, or that
comes after a restart, is not recognized.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable

from smeconf.smtpd.address import Address
from smeconf.smtpd.message import Message

_KEPT_SECONDS = 3600.0
_KEPT_MESSAGES = 1000


class Taken:
    """Remembers for an hour, of the last thousand such messages."""

    def __init__(self) -> None:
        self._by_digest: OrderedDict[bytes, tuple[float, frozenset[Address]]] = (
            OrderedDict()
        )

    def recipients(self, sender: Address, message: Message) -> frozenset[Address]:
        """Return those who have the message already; mostly nobody."""
        self._forget_old()
        if not self._by_digest:
            return frozenset()
        return self._by_digest.get(_digest(sender, message), (0, frozenset()))[1]

    def remember(
        self, sender: Address, message: Message, recipients: Iterable[Address]
    ) -> None:
        """Note who has a message that will be sent again."""
        digest = _digest(sender, message)
        _, known = self._by_digest.pop(digest, (0, frozenset()))
        self._by_digest[digest] = (time.monotonic(), known.union(recipients))
        if len(self._by_digest) > _KEPT_MESSAGES:
            self._by_digest.popitem(last=False)

    def forget(self, sender: Address, message: Message) -> None:
        """Drop what is known of a message that all have now."""
        if self._by_digest:
            self._by_digest.pop(_digest(sender, message), None)

    def _forget_old(self) -> None:
        limit = time.monotonic() - _KEPT_SECONDS
        while self._by_digest:
            digest, (noted, _) = next(iter(self._by_digest.items()))
            if noted > limit:
                return
            del self._by_digest[digest]


def _digest(sender: Address, message: Message) -> bytes:
    """Name a message by what the client sends again: not by our own header fields."""
    digest = hashlib.sha256(f"{sender}\n".encode("utf-8", "surrogateescape"))
    for piece in message.received_pieces():
        digest.update(piece)
    return digest.digest()
