"""queue/maildir: write mail into a Maildir.

Hook      queue
Argument  DIR                   the Maildir; below the root unless it begins with /
          PATTERN               a folder below DIR for each recipient: %l its local
                                part, %d its domain, %u the address; empty: one
                                Maildir for all
          MODE 0600             of the files, octal
From      qpsmtpd{QueueMethod}  maildir
          qpsmtpd{QueueTarget}  the directory

The reply says 250 only when file and directory are on disk (fsync).  With a pattern
all copies are written before the first becomes visible.  Return-Path and Delivered-To
keep the envelope; lines end with LF, as in every Maildir.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from smeconf.smtpd.address import Address
from smeconf.smtpd.hooks import Answer, denysoft, ok
from smeconf.smtpd.log import ERROR
from smeconf.smtpd.message import Message
from smeconf.smtpd.plugin import Context, Plugin, argument
from smeconf.smtpd.state import Connection

_PARTS = ("tmp", "new", "cur")
_SIGN = re.compile("%[ldu]")


def _octal(word: str) -> int:
    return int(word, 8)


class Maildir(Plugin):
    """Delivers into Maildirs."""

    @dataclass(frozen=True)
    class Settings:
        """Where to."""

        directory: str = argument(0, "")
        pattern: str = argument(1, "")
        mode: int = argument(2, 0o600, _octal)

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        super().__init__(name, settings, context)
        if not settings.directory:
            raise ValueError("needs a directory")
        self._directory = os.path.join(context.root, settings.directory)
        self._count = itertools.count(1)

    def prepare(self, uid: int, gid: int) -> None:
        """Make the Maildir for the filter's user."""
        _make_directories(self._directory, uid, gid)
        for part in _PARTS if not self.settings.pattern else ():
            _make_directories(os.path.join(self._directory, part), uid, gid)

    async def hook_queue(self, connection: Connection, message: Message) -> Answer:
        """Write the message; accept it when it is on disk."""
        transaction = connection.transaction
        assert transaction is not None
        name = self._file_name()
        places = self._places(transaction.sender, transaction.recipients)
        try:
            await self.in_thread(self._deliver, name, places, message)
        except OSError as error:
            self.log(connection, ERROR, f"error, {self._directory}: {error}")
            return denysoft("The mailbox cannot be written, try again later")
        self.log_pass(connection, name)
        return ok(f"Queued! {name}")

    def _places(
        self, sender: Address, recipients: list[Address]
    ) -> list[tuple[str, bytes]]:
        """Return the Maildirs to write to, each with the headers of its copy."""
        by_directory: dict[str, list[Address]] = {}
        for recipient in recipients:
            folder = _fill_in(self.settings.pattern, recipient)
            directory = os.path.join(self._directory, folder)
            by_directory.setdefault(directory, []).append(recipient)
        return [
            (directory, _envelope(sender, whom))
            for directory, whom in by_directory.items()
        ]

    def _deliver(
        self, name: str, places: list[tuple[str, bytes]], message: Message
    ) -> None:
        """Write every copy, then make them visible.

        Raises OSError, and leaves none behind.
        """
        begun: list[str] = []
        try:
            for directory, envelope in places:
                if self.settings.pattern:
                    for part in _PARTS:
                        _make_durably(os.path.join(directory, part))
                begun.append(directory)
                _write_durably(
                    os.path.join(directory, "tmp", name),
                    itertools.chain([envelope], message.pieces()),
                    self.settings.mode,
                )
            for directory in begun:
                os.rename(
                    os.path.join(directory, "tmp", name),
                    os.path.join(directory, "new", name),
                )
            for directory in begun:
                _fsync_directory(os.path.join(directory, "new"))
        except BaseException:
            for directory in begun:
                for part in ("tmp", "new"):
                    path = os.path.join(directory, part, name)
                    if os.path.exists(path):
                        os.unlink(path)
            raise

    def _file_name(self) -> str:
        now = time.time()
        host = self.context.me.replace("/", "\\057").replace(":", "\\072")
        microseconds = int(now % 1 * 1_000_000)
        unique = f"M{microseconds}P{os.getpid()}Q{next(self._count)}"
        return f"{int(now)}.{unique}.{host}"


def _fill_in(pattern: str, recipient: Address) -> str:
    """Return the folder of a recipient; no part of it can lead anywhere else."""
    values = {
        "%l": recipient.local,
        "%d": recipient.domain,
        "%u": f"{recipient.local}@{recipient.domain}",
    }
    # At one go: a local part may look like a sign itself.
    return _SIGN.sub(
        lambda sign: values[sign[0]].lower().replace("/", "_").lstrip(".") or "_",
        pattern,
    )


def _envelope(sender: Address, recipients: list[Address]) -> bytes:
    lines = [f"Return-Path: <{sender}>"]
    lines += (f"Delivered-To: {recipient}" for recipient in recipients)
    return "".join(f"{line}\r\n" for line in lines).encode()


def _write_durably(path: str, pieces: Iterable[bytes], mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        held = b""
        for piece in pieces:
            # A CR at the end of a piece may belong to an LF of the next.
            piece = held + piece
            held = b"\r" if piece.endswith(b"\r") else b""
            file.write(piece[: len(piece) - len(held)].replace(b"\r\n", b"\n"))
        file.write(held)
        file.flush()
        os.fsync(file.fileno())


def _make_directories(path: str, uid: int, gid: int) -> None:
    """Make a directory for the filter's user, and what lies above it."""
    if os.path.isdir(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.mkdir(path, 0o700)
    os.chown(path, uid, gid)


def _make_durably(path: str) -> None:
    """Make a directory, and what lies above it, so that they outlast a power cut."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_durably(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # another worker was faster
    _fsync_directory(parent)


def _fsync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
