"""The kinds of values that a schema names, and the check of each.

A check returns None for a value of its kind, else what would be accepted, worded to
follow "must be"; a list's check may say in front which of its entries is at fault.
Lists and names are taken apart by hand: ``config setprop`` runs through here, and
importing ``re`` or ``ipaddress`` costs it more than all the rest.
"""

from __future__ import annotations

from smeconf.database.lists import ListError, split_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from smeconf.database.schema import Property

_DIGITS = frozenset("0123456789")
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_ACCOUNT = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")
_HEX = frozenset("0123456789abcdef")
_OPENSSL = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:!+-@=._,"
)


def check(rule: Property, value: str) -> str | None:
    """Return None where ``rule`` allows ``value``, else why not, in one clause."""
    if value == "" and rule.optional:
        return None
    if rule.values:
        accepted = None if value in rule.values else "one of " + ", ".join(rule.values)
    else:
        accepted = CHECKS[rule.kind](rule, value)
    if accepted is None:
        return None
    entry, at_fault, accepted = accepted.rpartition(_AT_FAULT)
    if at_fault:
        return f"{entry}; must be {accepted}"
    return f"must be {accepted}" + ("" if rule.secret else f", not {value[:60]!r}")


def describe_accepted(rule: Property) -> str:
    """Return what ``rule`` accepts, in words."""
    if rule.values:
        return "one of " + ", ".join(rule.values)
    accepted = CHECKS[rule.kind](rule, "\x01")  # which no kind accepts
    return (accepted or "").rpartition(_AT_FAULT)[2]


def is_domain(name: str, least_labels: int = 1) -> bool:
    """Tell whether ``name`` is a host or domain name (RFC 1123, 2.1; ``_`` allowed)."""
    if len(name) > 253:
        return False
    labels = name.lower().split(".")
    return len(labels) >= least_labels and all(
        0 < len(label) <= 63
        and _LABEL.issuperset(label)
        and label[0] != "-"
        and label[-1] != "-"
        for label in labels
    )


def is_address(text: str) -> bool:
    """Tell whether ``text`` is an IPv4 or IPv6 address."""
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _switch(rule: Property, value: str) -> str | None:
    return None if value in ("enabled", "disabled") else "enabled or disabled"


def _flag(rule: Property, value: str) -> str | None:
    return None if value in ("1", "0") else "1 or 0"


def _text(rule: Property, value: str) -> str | None:
    if any(map(_is_control, value)):
        return "one line of text without control characters"
    return None


def _is_control(character: str) -> bool:
    """Tell whether a template would refuse to print it: C0 but tab, DEL, C1."""
    if character == "\t":
        return False
    return character < " " or "\x7f" <= character <= "\x9f"


def _word(rule: Property, value: str) -> str | None:
    if all(" " < character != "\x7f" for character in value):
        return None
    return "one word without blanks"


def _integer(rule: Property, value: str) -> str | None:
    low, high = rule.minimum, rule.maximum
    if value and _DIGITS.issuperset(value) and len(value) < 19:
        number = int(value)
        if number >= low and (high is None or number <= high):
            return None
    if high is None:
        return f"a whole number from {low}"
    return f"a whole number from {low} to {high}"


def _number(rule: Property, value: str) -> str | None:
    low, high = rule.minimum, rule.maximum
    whole, point, part = value.partition(".")
    is_number = whole and _DIGITS.issuperset(whole + (part or "x" * len(point)))
    if is_number and low <= float(value) <= (float(value) if high is None else high):
        return None
    upto = "" if high is None else f" to {high}"
    return f"a number from {low}{upto}, such as {low + 1} or {low + 1}.5"


def _size(rule: Property, value: str) -> str | None:
    digits = value[:-1] if value[-1:] in ("K", "M", "G") else value
    if digits and len(digits) < 19 and _DIGITS.issuperset(digits):
        return None
    return "a size in bytes, or with K, M or G: 25000000 or 25M"


def _domain(rule: Property, value: str) -> str | None:
    return None if is_domain(value) else "a host or domain name"


def _account(rule: Property, value: str) -> str | None:
    if value[:1].isalpha() and _ACCOUNT.issuperset(value):
        return None
    return "an account name: a lower case letter, then letters, digits, _ . or -"


def _accounts(rule: Property, value: str) -> str | None:
    return _each(
        value, lambda one: _account(rule, one) is None, "a comma list of account names"
    )


def _host(rule: Property, value: str) -> str | None:
    if is_domain(value) or is_address(value):
        return None
    return "a host name or an IP address"


def _mac(rule: Property, value: str) -> str | None:
    parts = value.lower().split(":")
    if len(parts) == 6 and all(len(p) == 2 and _HEX.issuperset(p) for p in parts):
        return None
    return "a hardware address such as 00:11:22:33:44:55"


def _openssl(rule: Property, value: str) -> str | None:
    if value and _OPENSSL.issuperset(value):
        return None
    return "a list in OpenSSL's form, such as HIGH:!SSLv2"


def _address(rule: Property, value: str) -> str | None:
    return None if is_address(value) else "an IP address"


def _addresses(rule: Property, value: str) -> str | None:
    return _each(value, is_address, "a comma list of IP addresses")


def _netmask(rule: Property, value: str) -> str | None:
    import ipaddress

    try:
        network = ipaddress.ip_network(f"0.0.0.0/{value}", strict=False)
    except ValueError:
        network = None
    # ip_network reads 24, and the inverse 0.0.0.255, as well.
    if network is None or str(network.netmask) != value:
        return "a netmask such as 255.255.255.0"
    return None


def _dns_servers(rule: Property, value: str) -> str | None:
    return _each(value, _is_server, "a comma list of DNS servers, each ip or ip@port")


def _is_server(entry: str) -> bool:
    address, at, port = entry.partition("@")
    return is_address(address) and (not at or _is_port(port))


def _is_port(text: str) -> bool:
    return _DIGITS.issuperset(text) and len(text) < 6 and 0 < int(text or 0) < 65536


def _zones(rule: Property, value: str) -> str | None:
    return _each(
        value,
        _is_zone,
        "a comma list of zones, each zone or zone:message (the zone a host name); "
        "an entry that holds a comma stands in quotes",
    )


def _is_zone(entry: str) -> bool:
    zone, _, message = entry.partition(":")
    printable = not any(map(_is_control, message))
    return printable and is_domain(zone.rstrip(" \t"), least_labels=2)


def _uribl_zones(rule: Property, value: str) -> str | None:
    return _each(
        value,
        _is_uribl_zone,
        "a comma list of zones, each zone or zone:mask-mask "
        "(multi.surbl.org:8-16-64-128)",
    )


def _is_uribl_zone(entry: str) -> bool:
    zone, colon, masks = entry.partition(":")
    return is_domain(zone, least_labels=2) and (
        not colon or all(map(_is_mask, masks.split("-")))
    )


def _is_mask(text: str) -> bool:
    return _DIGITS.issuperset(text) and len(text) < 11 and 0 < int(text or 0) < 2**32


def _each(value: str, is_good: Callable[[str], bool], accepted: str) -> str | None:
    try:
        entries = split_list(value)
    except ListError as error:
        return f"{error}{_AT_FAULT}{accepted}"
    for entry in entries:
        if not is_good(entry):
            return f"entry {entry!r}{_AT_FAULT}{accepted}"
    return None


# Between the entry of a list that is at fault and what a list must be.
_AT_FAULT = "\0"

CHECKS: dict[str, Callable[[Property, str], str | None]] = {
    "switch": _switch,
    "flag": _flag,
    "text": _text,
    "word": _word,
    "integer": _integer,
    "domain": _domain,
    "account": _account,
    "address": _address,
    "addresses": _addresses,
    "netmask": _netmask,
    "dns servers": _dns_servers,
    "zones": _zones,
    "number": _number,
    "size": _size,
    "accounts": _accounts,
    "host": _host,
    "mac": _mac,
    "openssl": _openssl,
    "uribl zones": _uribl_zones,
}

# The kinds that are comma lists.
LIST_KINDS = frozenset(
    ("accounts", "addresses", "dns servers", "uribl zones", "zones"),
)
