"""AUTH: the exchange by which a client proves who it is (RFC 4954).

Both mechanisms send the password as it is, in base64, so they belong inside of TLS:

    AUTH PLAIN AGFubgBzZXNhbWU=         one answer: NUL ann NUL sesame (RFC 4616)

    AUTH LOGIN                          two answers: the name, then the password
    334 VXNlcm5hbWU6
    YW5u
    334 UGFzc3dvcmQ6
    c2VzYW1l

An ``Exchange`` knows no socket and no passwords: it takes what the client says and
gives the next step, until that is ``Credentials``, which somebody else has to verify,
or a ``Failure``.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field

MECHANISMS = ("PLAIN", "LOGIN")

# The longest line of an exchange, without its end (RFC 4954, 4).
MAX_LINE_BYTES = 12288


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the client is asked: the text, in base64, of a reply 334."""

    text: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client claims: its name, its password and whom it wants to act as.

    ``authorization`` is empty or the same as ``user``.  The password is in no repr, so
    that it gets into no log and no traceback.
    """

    user: str
    password: str = field(repr=False)
    authorization: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The exchange is over without a result: code, enhanced code, text of the reply."""

    code: int
    enhanced: str
    text: str


Step = Challenge | Credentials | Failure

# The text of the session's own refusal: a guesser learns nothing from it.
REFUSED = Failure(535, "5.7.8", "Name or password is wrong")
_CANCELLED = Failure(501, "5.7.0", "Authentication cancelled")
_NOT_BASE64 = Failure(501, "5.5.2", "That is not base64")
_TOO_LONG = Failure(500, "5.5.6", "Authentication line too long")
_OVER = Failure(503, "5.5.1", "No authentication is under way")

_ASK_NAME = Challenge("VXNlcm5hbWU6")  # Username:
_ASK_PASSWORD = Challenge("UGFzc3dvcmQ6")  # Password:


class Exchange:
    """One exchange: ``begin`` once, then ``answer`` while steps are challenges.

    ``mechanism`` is one of MECHANISMS; anything else raises ValueError.
    """

    def __init__(self, mechanism: str) -> None:
        if mechanism not in MECHANISMS:
            raise ValueError(f"there is no mechanism {mechanism!r} here")
        self.mechanism = mechanism
        self._is_over = False
        self._name: str | None = None

    def begin(self, initial: str | None) -> Step:
        """Return the first step.

        ``initial`` is what stands behind the mechanism in the command: base64, ``=``
        for an empty answer; None where nothing does.
        """
        if initial is None:
            return Challenge("") if self.mechanism == "PLAIN" else _ASK_NAME
        return self._take("" if initial == "=" else initial)

    def answer(self, line: str) -> Step:
        """Return the step behind a line of the client, its line end cut off."""
        return self._end(_CANCELLED) if line == "*" else self._take(line)

    def _take(self, encoded: str) -> Step:
        if self._is_over:
            return _OVER
        if len(encoded.encode("utf-8", "surrogatepass")) > MAX_LINE_BYTES:
            return self._end(_TOO_LONG)
        try:
            data = binascii.a2b_base64(encoded, strict_mode=True)
        except ValueError:  # binascii.Error is one; so is what is not ASCII
            return self._end(_NOT_BASE64)
        if self.mechanism == "PLAIN":
            return self._end(_plain(data))
        return self._login(data)

    def _login(self, data: bytes) -> Step:
        text = _find_text(data)
        if not text:
            return self._end(REFUSED)
        if self._name is None:
            self._name = text
            return _ASK_PASSWORD
        return self._end(Credentials(self._name, text))

    def _end(self, step: Step) -> Step:
        self._is_over = True
        return step


def _plain(data: bytes) -> Step:
    """Read ``[authorization] NUL user NUL password`` (RFC 4616, 2)."""
    parts = data.split(b"\0")
    if len(parts) != 3:
        return REFUSED
    authorization, user, password = map(_find_text, parts)
    if not user or not password or authorization is None:
        return REFUSED
    # Nobody acts for anybody else here.
    if authorization not in ("", user):
        return REFUSED
    return Credentials(user, password, authorization)


def _find_text(data: bytes) -> str | None:
    """Return text without control characters; None for anything else."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if has_control(text) else text


def has_control(text: str) -> bool:
    """Tell whether a text holds a control character: C0, DEL or C1."""
    return any(sign < " " or "\x7f" <= sign <= "\x9f" for sign in text)
