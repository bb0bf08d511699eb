"""Reading the arguments of MAIL and RCPT (RFC 5321, 4.1.1.2 and 4.1.1.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from smeconf.smtpd.address import Address, AddressError, parse_path

_PATH = re.compile(r'\s*<((?:"(?:\\.|[^"\\])*"|[^<>"])*)>(?:\s+(.*))?\s*', re.DOTALL)


class CommandError(ValueError):
    """A command that is refused: code, enhanced code and text of the reply."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = enhanced
        self.text = text


@dataclass(frozen=True, slots=True)
class MailCommand:
    """What MAIL says: the sender, how large the message will be (0: unsaid), and
    whether it is SMTPUTF8."""

    sender: Address
    size: int
    utf8: bool = False


def parse_mail(argument: str) -> MailCommand:
    """Read ``FROM:<path> [parameters]``.  Raises CommandError."""
    sender, parameters = _path(argument, "FROM:", "1.7")
    size, utf8 = 0, False
    if len({name for name, _ in parameters}) < len(parameters):
        raise CommandError(501, "5.5.4", "A parameter is given twice")
    for name, value in parameters:
        if name == "SMTPUTF8" and not value:
            utf8 = True
        elif name == "SIZE":
            if not (value.isascii() and value.isdigit() and len(value) <= 20):
                raise CommandError(501, "5.5.4", "SIZE takes a number of bytes")
            size = int(value)
        elif name == "BODY":
            if value.upper() not in ("7BIT", "8BITMIME"):
                raise CommandError(501, "5.5.4", "BODY is 7BIT or 8BITMIME")
        else:
            raise _unknown(name)
    if not argument.isascii() and not utf8:
        raise CommandError(553, "5.6.7", "Such an address takes SMTPUTF8")
    return MailCommand(sender, size, utf8)


def parse_rcpt(argument: str, *, utf8: bool = False) -> Address:
    """Read ``TO:<path>``, of a message that is SMTPUTF8 or not.

    Raises CommandError.
    """
    recipient, parameters = _path(argument, "TO:", "1.3")
    if parameters:
        raise _unknown(parameters[0][0])
    if recipient.is_null:
        raise CommandError(501, "5.1.3", "A recipient cannot be empty")
    if not argument.isascii() and not utf8:
        raise CommandError(553, "5.6.7", "Such an address takes SMTPUTF8")
    return recipient


def parse_bdat(argument: str) -> tuple[int, bool]:
    """Read ``SIZE [LAST]`` (RFC 3030, 2).  Raises CommandError."""
    size, _, last = argument.strip().partition(" ")
    is_last = last.strip().upper()
    if not (size.isascii() and size.isdigit() and len(size) <= 20):
        raise CommandError(501, "5.5.4", "BDAT takes a number of bytes, and LAST")
    if is_last not in ("", "LAST"):
        raise CommandError(501, "5.5.4", "Behind the number only LAST may stand")
    return int(size), bool(is_last)


def _path(
    argument: str, keyword: str, detail: str
) -> tuple[Address, list[tuple[str, str]]]:
    """Split an argument into its address and its parameters."""
    if argument[: len(keyword)].upper() != keyword:
        raise CommandError(501, "5.5.4", f"Syntax: {keyword}<address>")
    match = _PATH.fullmatch(argument, len(keyword))
    if match is None:
        raise CommandError(501, f"5.{detail}", f"Syntax: {keyword}<address>")
    try:
        address = parse_path(match[1])
    except AddressError as error:
        raise CommandError(501, f"5.{detail}", f"Sorry, {error}") from None
    words = (match[2] or "").split()
    pairs = (word.partition("=") for word in words)
    return address, [(name.upper(), value) for name, _, value in pairs]


def _unknown(name: str) -> CommandError:
    return CommandError(555, "5.5.4", f"Parameter {name} is not known here")
