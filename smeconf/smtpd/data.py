r"""The end of DATA, and what stands between: RFC 5321, 4.1.1.4 and 4.5.2.

Only CRLF.CRLF ends a message, and a CR or LF that is not part of CRLF is noted: a
server that takes other line ends, or passes them on, lets one message smuggle a
second (CVE-2023-51764 and its kin).  The whole buffer is searched at once; reading it
line by line costs twice the time.
"""

from __future__ import annotations

_END = b"\r\n.\r\n"


class DataDecoder:
    """Finds the end of one message in the stream, and undoes its dot-stuffing.

    ``has_bare_newline`` tells, when the end is reached, whether a CR or LF stood
    alone.
    """

    __slots__ = ("_has_dot", "_held", "_is_first", "has_bare_newline")

    def __init__(self) -> None:
        # The CRLF that ended the command DATA: the first line may be stuffed, or the
        # end itself.
        self._held = b"\r\n"
        self._has_dot = False
        self._is_first = True
        self.has_bare_newline = False

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take what arrived; return the part of the message that is certain, and,
        when the end was in it, what stood behind the end (else None)."""
        window = self._held + data
        dot = window.find(b"\r\n.")
        self._has_dot = dot >= 0
        end = window.find(_END, dot) if dot >= 0 else -1
        if end >= 0:
            return self._decode(window[: end + 2]), window[end + 5 :]
        # Hold back what may be the beginning of the end or of a stuffed dot: all from
        # the first CR among the last four bytes.
        cut = window.find(b"\r", max(0, len(window) - 4))
        if cut < 0:
            self._held = b""
            return self._decode(window), None
        self._held = window[cut:]
        return self._decode(window[:cut]), None

    def _decode(self, piece: bytes) -> bytes:
        pairs = piece.count(b"\r\n")
        if pairs != piece.count(b"\n") or pairs != piece.count(b"\r"):
            self.has_bare_newline = True
        if self._has_dot:
            piece = piece.replace(b"\r\n.", b"\r\n")
        if self._is_first and piece:
            self._is_first = False
            return piece[2:]
        return piece


class ChunkDecoder:
    """The text of one message that comes in chunks of told size (RFC 3030).

    It knows no dots and no end but the last chunk's; line ends are as strict as in
    DATA, since the next server may get the message that way.
    """

    __slots__ = ("_ends_in_cr", "_left", "has_bare_newline")

    def __init__(self) -> None:
        self._left = 0
        self._ends_in_cr = False
        self.has_bare_newline = False

    def begin(self, size: int) -> None:
        """A chunk of ``size`` bytes comes next."""
        self._left = size

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take what arrived; return what of it belongs to the message, and, when the
        chunk is complete, what stood behind it (else None)."""
        piece = data[: self._left]
        self._left -= len(piece)
        if piece:
            self._look_at(b"\r" + piece if self._ends_in_cr else piece)
        return piece, None if self._left else data[len(piece) :]

    def end(self) -> None:
        """The last chunk is complete."""
        if self._ends_in_cr:
            self.has_bare_newline = True

    def _look_at(self, text: bytes) -> None:
        self._ends_in_cr = text.endswith(b"\r")
        if self._ends_in_cr:
            text = text[:-1]
        pairs = text.count(b"\r\n")
        if pairs != text.count(b"\n") or pairs != text.count(b"\r"):
            self.has_bare_newline = True
