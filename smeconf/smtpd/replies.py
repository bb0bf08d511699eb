"""Replies: codes, enhanced status codes (RFC 3463) and their form on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from smeconf.smtpd.hooks import Answer, Verdict

MAX_LINE = 512  # bytes, RFC 5321, 4.5.3.1.5


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a hook's denial is put to the client; ``closes`` ends the connection."""

    code: int
    enhanced: str
    closes: bool = False


def _refusals(deny: int, soft: int, hard: int, soft_hard: int) -> dict[Verdict, int]:
    return {
        Verdict.DENY: deny,
        Verdict.DENYSOFT: soft,
        Verdict.DENY_DISCONNECT: hard,
        Verdict.DENYSOFT_DISCONNECT: soft_hard,
    }


_CODES = {
    "connect": _refusals(550, 450, 550, 450),
    "helo": _refusals(550, 450, 550, 450),
    "ehlo": _refusals(550, 450, 550, 450),
    "auth": _refusals(535, 454, 535, 421),
    "mail": _refusals(550, 450, 550, 421),
    "rcpt": _refusals(550, 450, 550, 421),
    "data": _refusals(554, 451, 554, 451),
    "data_post": _refusals(552, 452, 552, 452),
    # A queue that refuses for good means the message, not the connection.
    "queue": _refusals(552, 452, 552, 421),
    "vrfy": _refusals(554, 252, 554, 421),
    "noop": _refusals(500, 450, 500, 421),
    "unrecognized_command": _refusals(500, 450, 521, 421),
}

_STANDARD_TEXTS = {
    "connect": "Connection from you refused",
    "helo": "Not you, by that name",
    "ehlo": "Not you, by that name",
    "auth": "Name or password is wrong",
    "mail": "Sender refused",
    "rcpt": "Recipient refused",
    "data": "Message refused",
    "data_post": "Message refused",
    "queue": "Message not taken",
    "vrfy": "Not verified",
    "noop": "Refused",
    "unrecognized_command": "Unrecognized command",
}


def refusal_of(hook: str, verdict: Verdict) -> Refusal:
    """Return code, enhanced code and closing of a denial at ``hook``."""
    code = _CODES[hook][verdict]
    closes = hook == "connect" or verdict in (
        Verdict.DENY_DISCONNECT,
        Verdict.DENYSOFT_DISCONNECT,
    )
    detail = 8 if hook == "auth" else 1
    return Refusal(code, f"{code // 100}.7.{detail}", closes)


def denial_reply(hook: str, answer: Answer) -> bytes:
    """Return the reply to a command that a hook denied."""
    refusal = refusal_of(hook, answer.verdict)
    text = answer.text or _STANDARD_TEXTS[hook]
    return reply(refusal.code, refusal.enhanced, *text.split("\n"))


@lru_cache(maxsize=512)  # most replies are of a few kinds
def reply(code: int, enhanced: str, *lines: str) -> bytes:
    """Return a reply, each line safe for the wire and at most 512 bytes long.

    ``enhanced`` is empty where RFC 2034 wants none.
    """
    prefix = f"{enhanced} " if enhanced else ""
    room = MAX_LINE - 6 - len(prefix)
    last = len(lines) - 1
    return b"".join(
        f"{code}{' ' if number == last else '-'}{prefix}".encode()
        + printable(line)[:room]
        + b"\r\n"
        for number, line in enumerate(lines)
    )


def printable(text: str) -> bytes:
    """Return ``text`` in printable ASCII, whatever a name server put into it."""
    if text.isascii() and text.isprintable():
        return text.encode()
    return "".join(
        character if " " <= character <= "~" else "?" for character in text
    ).encode()
