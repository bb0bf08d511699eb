"""Addresses of the envelope: which are read, how they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.smtpd.address import NULL, Address, AddressError, parse_path


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("you@example.test", "you", "example.test"),
        ("You@EXAMPLE.Test", "You", "example.test"),
        ("a.b+c=d/e@x.test", "a.b+c=d/e", "x.test"),
        ('"two words"@x.test', "two words", "x.test"),
        (r'"a\"b\\c"@x.test', 'a"b\\c', "x.test"),
        ('"simple"@x.test', "simple", "x.test"),
        ("@relay.test,@other.test:you@x.test", "you", "x.test"),
        ("you@[192.0.2.1]", "you", "[192.0.2.1]"),
        ("you@[ipv6:2001:DB8::1]", "you", "[IPv6:2001:db8::1]"),
        ("Postmaster", "Postmaster", ""),
        ("a_b@under_score.test", "a_b", "under_score.test"),
        (f"{'a' * 64}@x.test", "a" * 64, "x.test"),
    ],
)
def test_forms_of_rfc_5321_are_read(text: str, local: str, domain: str) -> None:
    assert parse_path(text) == Address(local, domain)


@pytest.mark.parametrize(
    "text",
    [
        "you",
        "you@",
        "@x.test",
        "you@x..test",
        "you@.test",
        "you@x.test.",
        "you@-x.test",
        "you@x-.test",
        ".you@x.test",
        "you.@x.test",
        "y..u@x.test",
        "you@x.test@y.test",
        "two words@x.test",
        '""@x.test',
        '"open@x.test',
        'a"b"@x.test',
        "you@[1.2.3]",
        "you@[1.2.3.256]",
        "you@[IPv6:1.2.3.4]",
        "you@[tag:x]",
        "you@192.0.2.1]",
        "b\udcffcher@x.test",  # no UTF-8
        "b\x85cher@x.test",  # C1
        "you@x.test\n",
        "y\0u@x.test",
        '"a\tb"@x.test',
        f"{'a' * 65}@x.test",
        f"you@{'a' * 64}.test",
        f"you@{'a.' * 126}test",
    ],
)
def test_what_others_might_read_differently_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match=r"address|local part|domain"):
        parse_path(text)


def test_null_sender_is_the_empty_path() -> None:
    assert parse_path("") is NULL
    assert NULL.is_null
    assert not Address("postmaster", "").is_null
    assert str(NULL) == ""


@pytest.mark.parametrize("local", ["postmaster", "ABUSE", "Root", "mailer-daemon"])
def test_role_accounts_are_known_in_any_case(local: str) -> None:
    assert Address(local, "x.test").is_role_account
    assert not Address(local + "s", "x.test").is_role_account


@given(st.text(max_size=300))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        parse_path(text)
    except AddressError:
        pass


label = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,8}[A-Za-z0-9])?", fullmatch=True)
domain = st.lists(label, min_size=1, max_size=4).map(".".join)
literal = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: f"[{ip}]"),
    st.ip_addresses(v=6).map(lambda ip: f"[IPv6:{ip.exploded}]"),
)
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
quoted = printable.map(
    lambda text: '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'
)
atom = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,8}", fullmatch=True)
local = st.one_of(quoted, st.lists(atom, min_size=1, max_size=3).map(".".join))


@given(local, st.one_of(domain, literal))
def test_address_as_text_is_read_as_the_same_address(local: str, domain: str) -> None:
    try:
        address = parse_path(f"{local}@{domain}")
    except AddressError:
        assert local == '""'
        return

    assert parse_path(str(address)) == address


@given(printable)
def test_whatever_is_read_keeps_its_meaning_as_text(text: str) -> None:
    for candidate in (text, f"{text}@x.test", f'"{text}"@x.test'):
        try:
            address = parse_path(candidate)
        except AddressError:
            continue
        assert parse_path(str(address)) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("bücher@x.test", Address("bücher", "x.test")),
        ("you@bücher.test", Address("you", "bücher.test")),
        ('"zwei bücher"@x.test', Address("zwei bücher", "x.test")),
        ("用户@例子.test", Address("用户", "例子.test")),
    ],
)
def test_letters_beyond_ascii_are_read(text: str, address: Address) -> None:
    assert parse_path(text) == address
