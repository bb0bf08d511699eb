"""The arguments of MAIL and RCPT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.smtpd.address import Address
from smeconf.smtpd.commands import CommandError, MailCommand, parse_mail, parse_rcpt

ME = Address("me", "x.test")


@pytest.mark.parametrize(
    ("argument", "command"),
    [
        ("FROM:<me@x.test>", MailCommand(ME, 0)),
        ("from:<me@x.test>", MailCommand(ME, 0)),
        ("FROM: <me@x.test> ", MailCommand(ME, 0)),
        ("FROM:<me@x.test> SIZE=1234", MailCommand(ME, 1234)),
        ("FROM:<me@x.test> body=8bitmime size=7", MailCommand(ME, 7)),
        ("FROM:<me@x.test> BODY=7BIT", MailCommand(ME, 0)),
        ("FROM:<>", MailCommand(Address("", ""), 0)),
        ('FROM:<"a> b"@x.test>', MailCommand(Address("a> b", "x.test"), 0)),
    ],
)
def test_mail_is_read(argument: str, command: MailCommand) -> None:
    assert parse_mail(argument) == command


@pytest.mark.parametrize(
    ("argument", "code", "enhanced"),
    [
        ("", 501, "5.5.4"),
        ("<me@x.test>", 501, "5.5.4"),
        ("TO:<me@x.test>", 501, "5.5.4"),
        ("FROM:me@x.test", 501, "5.1.7"),
        ("FROM:<me@x.test", 501, "5.1.7"),
        ("FROM:<me@x.test>SIZE=1", 501, "5.1.7"),
        ("FROM:<me@@x.test>", 501, "5.1.7"),
        ("FROM:<me@x.test> SIZE=", 501, "5.5.4"),
        ("FROM:<me@x.test> SIZE=-1", 501, "5.5.4"),
        ("FROM:<me@x.test> SIZE=²", 501, "5.5.4"),
        (f"FROM:<me@x.test> SIZE={'9' * 21}", 501, "5.5.4"),
        ("FROM:<me@x.test> BODY=BINARYMIME", 501, "5.5.4"),
        ("FROM:<me@x.test> SMTPUTF8=1", 555, "5.5.4"),
        ("FROM:<b\u00fccher@x.test>", 553, "5.6.7"),
        ("FROM:<me@x.test> SIZE=1 SIZE=2", 501, "5.5.4"),
    ],
)
def test_mail_that_is_wrong_is_refused_with_the_code_of_its_fault(
    argument: str, code: int, enhanced: str
) -> None:
    with pytest.raises(CommandError) as caught:
        parse_mail(argument)

    assert (caught.value.code, caught.value.enhanced) == (code, enhanced)


def test_recipient_is_read() -> None:
    assert parse_rcpt("To:<me@x.test>") == ME
    assert parse_rcpt("TO:<postmaster>") == Address("postmaster", "")


@pytest.mark.parametrize(
    ("argument", "code", "enhanced"),
    [
        ("FROM:<me@x.test>", 501, "5.5.4"),
        ("TO:<>", 501, "5.1.3"),
        ("TO:<me>", 501, "5.1.3"),
        ("TO:<me@x.test> NOTIFY=NEVER", 555, "5.5.4"),
    ],
)
def test_recipient_that_is_wrong_is_refused(
    argument: str, code: int, enhanced: str
) -> None:
    with pytest.raises(CommandError) as caught:
        parse_rcpt(argument)

    assert (caught.value.code, caught.value.enhanced) == (code, enhanced)


@given(st.text(max_size=200), st.sampled_from(["", "FROM:", "FROM:<", "FROM:<a@b> "]))
def test_any_argument_is_read_or_refused(text: str, beginning: str) -> None:
    try:
        parse_mail(beginning + text)
    except CommandError:
        pass
