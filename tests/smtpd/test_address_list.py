"""Lists of client addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.smtpd.address_list import AddressList, parse_entry


def has(entry: str, remote: str) -> bool:
    return AddressList([parse_entry(entry)]).has(remote)


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("192.0.2.7", ["192.0.2.7"], ["192.0.2.70", "192.0.2.6", "::1"]),
        ("192.168.1.", ["192.168.1.0", "192.168.1.255"], ["192.168.10.1", "1.2.3.4"]),
        ("10.", ["10.0.0.0", "10.255.255.255"], ["100.0.0.1", "110.0.0.1"]),
        (
            "192.0.2.64/26",
            ["192.0.2.64", "192.0.2.127", "192.0.2.100"],
            ["192.0.2.63", "192.0.2.128", "2001:db8::1"],
        ),
        ("192.0.2.0/255.255.255.0", ["192.0.2.255"], ["192.0.3.0"]),
        ("192.0.2.9/24", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::1"]),
        ("2001:DB8::1", ["2001:db8::1"], ["2001:db8::10"]),
        ("2001:0db8:0::1", ["2001:db8::1"], []),
        ("2001:db8:", ["2001:db8::1", "2001:db8:1::"], ["2001:db80::1"]),
        (
            "2001:db8::/32",
            ["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"],
            ["2001:db7:ffff::", "2001:db9::", "192.0.2.1"],
        ),
        ("fe80::/10", ["fe80::1%eth0"], ["fec0::1"]),
        ("::", ["::"], ["::1"]),
    ],
)
def test_entry_holds_its_addresses_and_no_other(
    entry: str, inside: list[str], outside: list[str]
) -> None:
    assert [remote for remote in inside if not has(entry, remote)] == []
    assert [remote for remote in outside if has(entry, remote)] == []


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "host.test",
        "192.0.2",
        "192.0.2.256",
        "256.",
        "a.",
        ".",
        "1.2.3.4/33",
        "1::g",
    ],
)
def test_what_is_no_entry_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_entry(entry)


def test_exceptions_are_stronger_than_entries() -> None:
    clients = AddressList(["192.168.1.", "10.0.0.1"], ["192.168.1.9", "10.0.0.0/8"])

    assert clients.has("192.168.1.8")
    assert not clients.has("192.168.1.9")
    assert not clients.has("10.0.0.1")


def test_empty_list_has_nobody() -> None:
    assert not AddressList([]).has("127.0.0.1")


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_both_ends_of_a_network_belong_to_it(address: object, bits: int) -> None:
    import ipaddress

    network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    entry = parse_entry(f"{address}/{bits}")

    assert has(entry, str(network[0]))
    assert has(entry, str(network[-1]))
    for outside in (int(network[0]) - 1, int(network[-1]) + 1):
        if 0 <= outside < 2**32:
            assert not has(entry, str(ipaddress.IPv4Address(outside)))
