"""A message while it is received, checked and queued.

It grows in memory up to a threshold and then on disk, in an unnamed file of the spool
directory that vanishes with the process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

MEMORY_BYTES = 1_000_000
_PIECE_BYTES = 256 * 1024


class Message:
    """The text of one message, lines ended by CRLF.

    ``size`` is what was received, in bytes.  What the filter itself puts in front
    (Received and such) is kept apart in ``added_headers``.
    """

    __slots__ = ("_file", "_headers", "_pieces", "_spool", "added_headers", "size")

    def __init__(self, spool: str) -> None:
        self._spool = spool
        self._pieces: list[bytes] = []
        self._file: BinaryIO | None = None
        self._headers: bytes | None = None  # made when first asked for
        self.added_headers: list[bytes] = []
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Add what arrived.

        Raises OSError where the spool directory cannot take it.
        """
        self.size += len(piece)
        if self._file is not None:
            _write_all(self._file.fileno(), piece)
            return
        self._pieces.append(piece)
        if self.size > MEMORY_BYTES:
            self._file = tempfile.TemporaryFile(dir=self._spool)  # noqa: SIM115
            _write_all(self._file.fileno(), b"".join(self._pieces))
            self._pieces = []

    def close(self) -> None:
        """Give the memory and the file back."""
        self._pieces = []
        if self._file is not None:
            self._file.close()
            self._file = None

    def add_header(self, field: str) -> None:
        """Put a header field (``Name: value``, folded by CRLF and blank) in front."""
        self.added_headers.insert(0, field.encode("utf-8", "surrogateescape") + b"\r\n")

    def pieces(self) -> Iterator[bytes]:
        """Yield the whole message in pieces: added headers first."""
        yield b"".join(self.added_headers)
        yield from self.received_pieces()

    def received_pieces(self) -> Iterator[bytes]:
        """Yield the message as it was received, in pieces."""
        if self._file is None:
            yield from self._pieces
            return
        # By position: a second reader in another thread must not move this one.
        offset = 0
        while piece := os.pread(self._file.fileno(), _PIECE_BYTES, offset):
            yield piece
            offset += len(piece)

    def header(self, name: str) -> str | None:
        """Return the value of the first header field of that name, unfolded.

        None where there is none.  Only the first 256 KiB are looked at.
        """
        block = b"\r\n" + self._header_block()
        lower = block.lower()
        start = lower.find(b"\r\n" + name.lower().encode() + b":")
        if start < 0:
            return None
        value = block.find(b":", start) + 1
        end = block.find(b"\r\n", value)
        while end >= 0 and block[end + 2 : end + 3] in (b" ", b"\t"):
            end = block.find(b"\r\n", end + 2)
        text = block[value : None if end < 0 else end].replace(b"\r\n", b"")
        return text.decode("utf-8", "replace").strip()

    def has_headers_beyond(self, limit: int) -> bool:
        """Tell whether the header takes more than ``limit`` bytes; 0 is no limit."""
        if not 0 < limit < self.size:
            return False
        beginning = b"\r\n"
        for piece in self.received_pieces():
            beginning += piece[: limit + 6]
            end = beginning.find(b"\r\n\r\n")
            if end >= 0:
                return end > limit
            if len(beginning) > limit + 4:
                return True
        return len(beginning) > limit

    def _header_block(self) -> bytes:
        if self._headers is None:
            beginning = b""
            for piece in self.received_pieces():
                beginning += piece
                if b"\r\n\r\n" in beginning or len(beginning) >= _PIECE_BYTES:
                    break
            end = (b"\r\n" + beginning).find(b"\r\n\r\n")
            self._headers = beginning[:_PIECE_BYTES] if end < 0 else beginning[:end]
        return self._headers


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
