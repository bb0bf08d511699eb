r"""The history of a database: who changed what, when, from what, to what, and why.

One line a property, appended and on disk before the database itself is replaced; all
lines of one write carry one revision.  The database's ``# updated:`` line names the
revision it is at, so after a kill between the two writes the lines of a higher
revision are known to be void: nobody reads them, and the next write cuts them off.

Fields stand between tabs: revision, time (UTC), who, reason, key, property (empty: the
record's type), old value, new value.  A value is ``=text``, ``-`` where there was none,
or ``*`` for a secret, which is never written.  Tab, newline, CR and backslash are
escaped with a backslash.
"""

from __future__ import annotations

import os

from smeconf.database.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# What a property is called that holds a secret, whether the schema knows it or not.
_SECRET_WORDS = ("passw", "secret", "passphrase")

_ABSENT, _SECRET = "-", "*"


class HistoryError(Exception):
    """A history that cannot be read, or a revision that is not in it."""


class Entry:
    """One change of one property.

    ``property`` is empty for the record's type; ``old`` and ``new`` are None where
    there was no such property (or record), and hidden ones of a secret read as
    ``is_secret``.
    """

    __slots__ = (
        "is_secret",
        "key",
        "new",
        "old",
        "property",
        "reason",
        "revision",
        "time",
        "who",
    )

    def __init__(
        self,
        revision: int,
        time: str,
        who: str,
        reason: str,
        key: str,
        property: str,
        old: str | None,
        new: str | None,
        is_secret: bool = False,
    ) -> None:
        self.revision = revision
        self.time = time
        self.who = who
        self.reason = reason
        self.key = key
        self.property = property
        self.old = old
        self.new = new
        self.is_secret = is_secret

    def format(self) -> str:
        """Return the line of this entry, without its newline."""
        fields = (
            str(self.revision),
            self.time,
            _escape(self.who),
            _escape(self.reason),
            _escape(self.key),
            _escape(self.property),
            self._shown(self.old),
            self._shown(self.new),
        )
        return "\t".join(fields)

    @classmethod
    def parse(cls, line: str) -> Entry:
        """Read a line.  Raises HistoryError for what is none."""
        fields = line.split("\t")
        if len(fields) != 8 or not (fields[0].isascii() and fields[0].isdigit()):
            raise HistoryError(f"no line of a history: {line[:60]!r}")
        revision, time, who, reason, key, name, old, new = fields
        return cls(
            int(revision),
            time,
            _unescape(who),
            _unescape(reason),
            _unescape(key),
            _unescape(name),
            _unescape(old[1:]) if old[:1] == "=" else None,
            _unescape(new[1:]) if new[:1] == "=" else None,
            _SECRET in (old, new),
        )

    def _shown(self, value: str | None) -> str:
        if value is None:
            return _ABSENT
        return _SECRET if self.is_secret else "=" + _escape(value)


class History:
    """The history file of one database."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def append(self, entries: list[Entry], after: int) -> None:
        """Write entries behind those of revision ``after``, durably.

        What stands behind that is of a write that was killed, and is cut off.
        Raises OSError.
        """
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = _end_of_revision(file, after)
            os.ftruncate(file, end)
            text = "".join(entry.format() + "\n" for entry in entries)
            data = memoryview(text.encode("utf-8", "surrogateescape"))
            while data:
                written = os.pwrite(file, data, end)
                data = data[written:]
                end += written
            os.fsync(file)
        finally:
            os.close(file)

    def read(self, up_to: int | None = None) -> Iterator[Entry]:
        """Yield the entries, oldest first, of revisions up to that one.

        Raises HistoryError naming the line that cannot be read, and OSError.
        """
        try:
            with open(self.path, "rb") as file:
                lines = file.read().decode("utf-8", "surrogateescape").split("\n")
        except FileNotFoundError:
            return
        for line in lines[:-1]:  # the last is empty, or was cut off by a kill
            entry = Entry.parse(line)
            if up_to is not None and entry.revision > up_to:
                return
            yield entry

    def last_revision(self) -> int:
        """Return the revision of the last whole line; 0 for an empty history."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            for _, revision in _lines_backwards(file):
                return revision
            return 0
        finally:
            os.close(file)


def changes_between(
    old: Record | None,
    new: Record | None,
    is_secret: Callable[[str], bool],
) -> Iterator[tuple[str, str | None, str | None, bool]]:
    """Yield property, old and new value, and whether it is a secret, of what differs
    between two states of a record."""
    before = _flat(old)
    after = _flat(new)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name), is_secret(name)


def looks_secret(name: str) -> bool:
    """Tell whether a property's name says that it holds a secret."""
    lower = name.lower()
    return any(word in lower for word in _SECRET_WORDS)


def _flat(record: Record | None) -> Mapping[str, str]:
    return {} if record is None else {"": record.type, **record.properties}


def _lines_backwards(file: int) -> Iterator[tuple[int, int]]:
    """Yield the end (offset) and revision of each whole line, from the last on."""
    position = os.fstat(file).st_size
    tail = b""
    while position > 0:
        start = max(0, position - 4096)
        tail = os.pread(file, position - start, start) + tail
        position = start
        while (end := tail.rfind(b"\n")) >= 0:
            begin = tail.rfind(b"\n", 0, end)
            if begin < 0 and position > 0:
                break  # the line begins in an earlier block
            number = tail[begin + 1 : end].split(b"\t", 1)[0]
            yield position + end + 1, int(number) if number.isdigit() else 0
            tail = tail[: begin + 1]


def _end_of_revision(file: int, revision: int) -> int:
    """Return the offset behind the last whole line of at most that revision."""
    for end, found in _lines_backwards(file):
        if found <= revision:
            return end
    return 0


_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))


def _escape(text: str) -> str:
    for plain, escaped in _ESCAPES:
        if plain in text:
            text = text.replace(plain, escaped)
    return text


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    plain = {escaped: character for character, escaped in _ESCAPES}
    result = []
    position = 0
    while position < len(text):
        pair = text[position : position + 2]
        result.append(plain.get(pair, text[position]))
        position += 2 if pair in plain else 1
    return "".join(result)
