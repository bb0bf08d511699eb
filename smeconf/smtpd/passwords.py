"""Passwords of those who may log in: a file of names and scrypt hashes.

    # a comment
    ann:scrypt$15$8$1$bm90IHJlYWxseSBzYWx0IQ==$…

A hash names how it was made: ``scrypt$LOG2_N$R$P$SALT$HASH``, salt and hash in base64
(RFC 7914).  One costs some 60 ms and 32 MB, here and for whoever steals the file.
Nothing else is read: hashes of crypt(3), as in ``/etc/shadow``, would need a module
that Python gives up.

The file is written by ``smeconf user`` alone, and read anew by the filter as soon as
it is another one.
"""

from __future__ import annotations

import binascii
import contextlib
import fcntl
import hashlib
import hmac
import os
import stat
import time
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

# Below the root.
PASSWORD_FILE = "var/lib/qpsmtpd/passwd"

MAX_NAME_BYTES = 256
MAX_PASSWORD_BYTES = 1024

# What a line of the file may make us use.
_MAX_MEMORY = 256 * 1024 * 1024

_LOCK_SECONDS = 10.0
_LOCK_TRY_SECONDS = 0.05


class PasswordError(Exception):
    """A file or a hash that cannot be used: one line for people, no secret in it."""


@dataclass(frozen=True, slots=True)
class _Hash:
    log2_n: int
    r: int
    p: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def of(self, text: str) -> bytes:
        """Return the digest of a password under these parameters."""
        return hashlib.scrypt(
            _prepared(text),
            salt=self.salt,
            n=1 << self.log2_n,
            r=self.r,
            p=self.p,
            maxmem=2 * _MAX_MEMORY,  # what n and r come to was looked at before
            dklen=len(self.digest),
        )

    def __str__(self) -> str:
        salt, digest = (b64encode(one).decode() for one in (self.salt, self.digest))
        return f"scrypt${self.log2_n}${self.r}${self.p}${salt}${digest}"


# New hashes are made like this one.
_NEW = _Hash(15, 8, 1, salt=bytes(16), digest=bytes(32))

# What the password of a name that is not known is verified against: no password is
# right, and it takes as long.
UNKNOWN = str(_NEW)


def hash_password(text: str) -> str:
    """Return the line that a password can be verified against, with a new salt."""
    new = replace(_NEW, salt=os.urandom(len(_NEW.salt)))
    return str(replace(new, digest=new.of(text)))


def verify(text: str, stored: str) -> bool:
    """Tell whether ``stored`` was made of this password.

    How long that takes depends on neither.  Raises PasswordError where ``stored`` is
    no hash that is read here.
    """
    known = _parse(stored)
    return hmac.compare_digest(known.of(text), known.digest)


def needs_rehash(stored: str) -> bool:
    """Tell whether a hash was made with other parameters than new ones are.

    Raises PasswordError as ``verify`` does.
    """
    known = _parse(stored)
    return replace(known, salt=_NEW.salt, digest=_NEW.digest) != _NEW


def is_plain_name(name: str) -> bool:
    """Tell whether a name can stand in the file, and be told from others."""
    return (
        0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES
        and name.isprintable()
        and not any(sign.isspace() or sign == ":" for sign in name)
        and not name.startswith("#")
    )


def _prepared(text: str) -> bytes:
    # Keyboards differ in how they put accents together (RFC 8265, 4.2.2).
    return unicodedata.normalize("NFC", text).encode("utf-8")


def _parse(stored: str) -> _Hash:
    kind, *words = stored.split("$")
    if kind != "scrypt" or len(words) != 5:
        raise PasswordError("is no scrypt hash: set the password anew")
    try:
        log2_n, r, p = map(_small_number, words[:3])
        salt, digest = (b64decode(word, validate=True) for word in words[3:])
    except (ValueError, binascii.Error):
        raise PasswordError("is a broken scrypt hash: set the password anew") from None
    if (
        not (1 <= log2_n <= 24 and 1 <= r <= 32 and 1 <= p <= 16)
        or 128 * r << log2_n > _MAX_MEMORY
        or not (8 <= len(salt) <= 64 and 32 <= len(digest) <= 64)
    ):
        raise PasswordError("is a scrypt hash out of bounds: set the password anew")
    return _Hash(log2_n, r, p, salt, digest)


def _small_number(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 2):
        raise ValueError(word)
    return int(word)


@dataclass(frozen=True, slots=True)
class _Table:
    """The file as it was read: what tells it from another, and what is in it.

    ``known`` are the names of all lines, those of ``faults`` among them.
    """

    stamp: tuple[int, ...] = ()
    hashes: dict[str, str] = field(default_factory=dict, repr=False)
    known: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()


class PasswordFile:
    """The file of names and hashes at ``path``; one that is missing has no names.

    May be used by several threads.  ``group`` is who may read the file that is
    written, besides its owner; None: nobody.
    """

    def __init__(self, path: str, group: int | None = None) -> None:
        self.path = path
        self._group = group
        # One value, replaced as a whole: threads that read see one file, or another.
        self._table = _Table()

    def find(self, name: str) -> str | None:
        """Return the hash of a name, None where it is not there.

        A name is what it looks like, however its accents are put together.  Raises
        PasswordError where the file cannot be read.
        """
        return self._current().hashes.get(unicodedata.normalize("NFC", name))

    def has(self, name: str) -> bool:
        """Tell whether any line is about a name, be its hash broken.

        Raises PasswordError where the file cannot be read.
        """
        return unicodedata.normalize("NFC", name) in self._current().known

    def names(self) -> list[str]:
        """Return all names, in the order of the file.  Raises PasswordError."""
        return list(self._current().hashes)

    def faults(self) -> list[str]:
        """Return what is wrong with single lines, ``path:line: why`` each.

        Such a line counts as missing.  Raises PasswordError.
        """
        return list(self._current().faults)

    def put(self, name: str, stored: str, *, is_new: bool) -> bool:
        """Give a name this hash; durable on return.

        ``is_new``: it must not be in the file, else it must.  Where that is not so,
        nothing is changed, and False returned.  Raises ValueError for what is no name,
        PasswordError for what is no hash, or where the file cannot be read or written.
        """
        name = unicodedata.normalize("NFC", name)
        if not is_plain_name(name):
            raise ValueError(f"{name!r} is no name")
        _parse(stored)
        return self._change(name, f"{name}:{stored}".encode(), is_new)

    def delete(self, name: str) -> bool:
        """Remove a name; tell whether it was there.  Raises PasswordError."""
        return self._change(unicodedata.normalize("NFC", name), None, False)

    def _current(self) -> _Table:
        try:
            if _stamp(os.stat(self.path)) != self._table.stamp:
                self._table = self._load()
        except FileNotFoundError:
            self._table = _Table()
        except OSError as error:
            raise self._fault(error) from error
        return self._table

    def _load(self) -> _Table:
        """Read the file.  Raises OSError, and PasswordError where it is none."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise PasswordError(f"{self.path}: is no plain file")
            with open(descriptor, "rb", closefd=False) as file:
                return _read_table(self.path, file.read(), _stamp(status))
        finally:
            os.close(descriptor)

    def _change(self, name: str, line: bytes | None, is_new: bool) -> bool:
        """Put ``line`` in place of those of a name, or add it; tell whether the name
        was there, or was not, as ``is_new`` says: else nothing is changed."""
        try:
            os.makedirs(os.path.dirname(self.path), 0o755, exist_ok=True)
            with self._locked():
                old = self._lines()
                places = [n for n, one in enumerate(old) if _name_of(one) == name]
                if bool(places) is is_new:
                    return False
                new = [one for n, one in enumerate(old) if n not in places]
                if line is not None:
                    new.insert(places[0] if places else len(new), line)
                self._replace(b"".join(one + b"\n" for one in new))
                return True
        except OSError as error:
            raise self._fault(error) from error

    def _lines(self) -> list[bytes]:
        try:
            with open(self.path, "rb") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of those that write."""
        path = f"{self.path}.lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(path, flags, 0o600)
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise PasswordError(
                            f"{path}: is held by another process: try again later"
                        ) from None
                    time.sleep(_LOCK_TRY_SECONDS)
            yield
        finally:
            os.close(lock)

    def _replace(self, data: bytes) -> None:
        """Write the file anew: durable, whole or not at all, never wider open than
        it is to be."""
        directory, name = os.path.split(self.path)
        # One fixed name: the lock is held, so what lies there is litter.
        beside = os.path.join(directory, f".{name}.new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
                if self._group is not None:
                    os.fchown(file.fileno(), -1, self._group)
                    os.fchmod(file.fileno(), 0o640)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        _fsync_directory(directory)

    def _fault(self, error: OSError) -> PasswordError:
        # Of a descriptor there is a number, which says nothing.
        path = error.filename if isinstance(error.filename, str) else self.path
        return PasswordError(f"{path}: {error.strerror}")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    # ctime too: times of modification can be set, and the clock may step.
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_size, *times)


def _read_table(path: str, data: bytes, stamp: tuple[int, ...]) -> _Table:
    hashes: dict[str, str] = {}
    known: set[str] = set()
    faults: list[str] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            name = _name_of(line)
            if name is None:
                raise PasswordError("is not NAME:HASH")
            if name in known:
                raise PasswordError(f"{name} is there twice: the first line counts")
            known.add(name)
            stored = line.partition(b":")[2].decode("ascii", "replace").strip()
            _parse(stored)
            hashes[name] = stored
        except PasswordError as error:
            faults.append(f"{path}:{number}: {error}")
    return _Table(stamp, hashes, frozenset(known), tuple(faults))


def _name_of(line: bytes) -> str | None:
    """Return the name that a line is about, None where it is about none."""
    word, colon, _ = line.partition(b":")
    try:
        name = unicodedata.normalize("NFC", word.decode("utf-8"))
    except UnicodeDecodeError:
        return None
    return name if colon and is_plain_name(name) else None


def _fsync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
