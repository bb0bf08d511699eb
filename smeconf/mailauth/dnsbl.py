"""IP block lists in the DNS (RFC 5782).

A list answers a question for the reversed address below its zone: 192.0.2.99 on
``zen.example`` is asked for as ``99.2.0.192.zen.example``.  An A record inside
127.0.0.0/8 means listed; a TXT record explains it.  No record means not listed, and no
answer means neither.

Operators put their own troubles into A records as well: 127.255.255.0/24 ("you ask
through an open resolver", "too many questions") and 127.0.0.1 ("refused").  Taken for
listings they would refuse all mail, as would a lapsed zone that answers every name
with a web server's address.  None of these counts here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from smeconf.dns import Answer, Resolver, Status, Zone, reversed_address


@dataclass(frozen=True, slots=True)
class BlockList:
    """One list: its zone, and the site's own message (None: the list's text)."""

    zone: Zone
    name: str
    message: str | None

    @classmethod
    def parse(cls, text: str) -> BlockList:
        """Read ``zone`` or ``zone:message``.  Raises ValueError naming the zone."""
        name, colon, message = text.partition(":")
        name = name.strip()
        return cls(Zone.of(name), name, message.strip() if colon else None)


@dataclass(frozen=True, slots=True)
class Findings:
    """What the lists said of one address.

    ``listed``: pairs of list and text for the client, in the order of the lists.
    ``troubles``: one line for each list that gave no answer, or an answer that is no
    listing.
    """

    listed: tuple[tuple[BlockList, str], ...]
    troubles: tuple[str, ...]


_NOT_LISTED = IPv4Address("127.0.0.1")
_LISTED = IPv4Address("127.0.0.2")


def is_listing(address: str) -> bool:
    """Tell whether an A record of a list means "listed"."""
    return address.startswith("127.") and not _is_error(address)


def _is_error(address: str) -> bool:
    """Tell whether an A record is an operator's word for "I do not answer you"."""
    return address == "127.0.0.1" or address.startswith("127.255.255.")


@dataclass(frozen=True, slots=True)
class Health:
    """How a list answered for its test points (RFC 5782, 5).

    ``is_usable`` is False for a list whose word would refuse everybody or nobody;
    ``trouble`` is empty where all is well.
    """

    is_usable: bool
    trouble: str


async def examine(
    resolver: Resolver, lists: Sequence[BlockList], seconds: float
) -> dict[BlockList, Health]:
    """Ask each list about 127.0.0.1, which must not be listed, and 127.0.0.2, which
    must be; all at once, for at most ``seconds`` in all."""
    points = [
        one.zone.question(reversed_address(point), "A")
        for point in (_NOT_LISTED, _LISTED)
        for one in lists
    ]
    answers = await resolver.ask_all(points, seconds)
    pairs = zip(answers[: len(lists)], answers[len(lists) :], strict=True)
    return {one: _judge(*pair) for one, pair in zip(lists, pairs, strict=True)}


def _judge(not_listed: Answer, listed: Answer) -> Health:
    if not all(map(_is_error, not_listed.addresses)):
        return Health(False, "lists 127.0.0.1, so it would refuse everybody")
    if listed.status is Status.FAILED:
        return Health(True, f"cannot be tested: {listed.why}")
    if listed.status is Status.NONE:
        return Health(True, "does not list its test point 127.0.0.2")
    if not any(map(is_listing, listed.addresses)):
        codes = ", ".join(listed.addresses)
        return Health(False, f"answers with errors only ({codes})")
    return Health(True, "")


async def look_up(
    resolver: Resolver,
    address: IPv4Address | IPv6Address,
    lists: Sequence[BlockList],
    seconds: float,
) -> Findings:
    """Ask all lists about an address, at once, for at most ``seconds`` in all."""
    labels = reversed_address(address)
    addresses = [one.zone.question(labels, "A") for one in lists]
    explained = [one for one in lists if one.message is None]
    texts = [one.zone.question(labels, "TXT") for one in explained]
    answers = await resolver.ask_all([*addresses, *texts], seconds)
    explanations = dict(zip(explained, answers[len(lists) :], strict=True))

    listed: list[tuple[BlockList, str]] = []
    troubles: list[str] = []
    for one, answer in zip(lists, answers, strict=False):
        if answer.status is Status.FAILED:
            troubles.append(f"{one.name}: {answer.why}")
        elif answer.status is Status.FOUND:
            if any(map(is_listing, answer.addresses)):
                texts_found = explanations[one].texts if one.message is None else ()
                listed.append((one, _text(one, address, texts_found)))
            else:
                codes = ", ".join(answer.addresses)
                troubles.append(f"{one.name}: {codes} is an error, no listing")
    return Findings(tuple(listed), tuple(troubles))


def _text(
    one: BlockList, address: IPv4Address | IPv6Address, texts: Sequence[bytes]
) -> str:
    if one.message:
        return one.message.replace("%IP%", str(address))
    # One line, however the list wrote it: the client reads it in a reply.
    text = " ".join(b"".join(texts[:1]).decode("utf-8", "replace").split())
    if text:
        return text
    return f"{address} is listed by {one.name}"
