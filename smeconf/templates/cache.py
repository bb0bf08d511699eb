"""Compiled fragments, kept in one file from one run to the next.

Compiling is most of what an expansion costs.  What is kept is found by a fragment's
path and text, so a changed fragment is compiled anew, and the file may be deleted at
any time: whatever is unexpected about it, it is as if it were not there.

The file holds code, and reading code that a stranger wrote is as good as running it.
So it is used only where it is a regular file of ours or of root that nobody else can
write.
"""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import stat
import zlib
from collections.abc import Mapping
from types import CodeType

import jinja2

# Raise it when the options or filters of the environment change: constants are
# computed when a fragment is compiled.
_FORMAT = 1
_MOST_ENTRIES = 2000


class Cache:
    """The compiled fragments of one file; made by :meth:`load`."""

    def __init__(self, path: str, kept: Mapping[bytes, bytes] | None = None) -> None:
        self._path = path
        self._kept = dict(kept or {})
        self._used: dict[bytes, bytes] = {}
        self._is_changed = False

    @classmethod
    def load(cls, path: str) -> Cache:
        """Return what is kept at a path: nothing, where there is no file to trust."""
        return cls(path, _read(path))

    def find(self, name: str, path: str, source: str) -> CodeType | None:
        """Return the code of a fragment with that text, or None."""
        key = _key(name, path, source)
        data = self._used.get(key) or self._kept.get(key)
        if data is None:
            return None
        try:
            code = marshal.loads(data)
        except (EOFError, ValueError, TypeError):
            return None
        if not isinstance(code, CodeType):
            return None
        self._used[key] = data
        return code

    def add(self, name: str, path: str, source: str, code: CodeType) -> None:
        """Keep the code of a fragment."""
        self._used[_key(name, path, source)] = marshal.dumps(code)
        self._is_changed = True

    def save(self) -> None:
        """Write the file, if anything was added; what was not used goes first where
        there is too much.

        Where it cannot be written nothing is kept, and nobody needs to know.
        """
        if not self._is_changed:
            return
        kept = dict(list((self._used | self._kept).items())[:_MOST_ENTRIES])
        try:
            _write(self._path, kept)
        except OSError:
            return
        self._is_changed = False


def _key(name: str, path: str, source: str) -> bytes:
    parts = (os.fsencode(name), os.fsencode(path), source.encode("utf-8"))
    # A NUL is in no path, so no two fragments make the same bytes.
    return hashlib.sha256(b"\0".join(parts)).digest()


def _head(body: bytes) -> bytes:
    """Return what must stand before a body; the sum is against accidents alone."""
    versions = f"{_FORMAT} {jinja2.__version__} {importlib.util.MAGIC_NUMBER.hex()}"
    return f"smeconf templates {versions} {zlib.crc32(body)}\n".encode()


def _read(path: str) -> dict[bytes, bytes]:
    try:
        data = _read_trusted(path)
        head, newline, body = data.partition(b"\n")
        if head + newline != _head(body):
            return {}
        kept = marshal.loads(body)
    except (OSError, EOFError, ValueError, TypeError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _read_trusted(path: str) -> bytes:
    """Return the content of a file that only root or we ourselves can write."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if (
            not stat.S_ISREG(found.st_mode)
            or found.st_uid not in (0, os.geteuid())
            or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        ):
            return b""
        return file.read()


def _write(path: str, kept: dict[bytes, bytes]) -> None:
    body = marshal.dumps(kept)
    beside = f"{path}.{os.getpid()}"
    try:
        os.unlink(beside)  # of a run that was killed
    except FileNotFoundError:
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(beside, flags, 0o600), "wb") as file:
            file.write(_head(body) + body)
        os.rename(beside, path)
    except OSError:
        os.unlink(beside)
        raise
