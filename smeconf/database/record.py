r"""The text of an SME database, and the records in it.  Pure: no files here.

A database is one line a record, ``KEY=TYPE|prop|value|prop|value``, sorted by key,
below a head of ``#`` lines.  Splitting is at every ``|`` that no backslash precedes.
A ``|`` inside a value is written ``\|`` and a newline ``\n`` (two characters), both
turned back on reading; so a typed backslash-n cannot be told from a newline, and a
backslash at the end of a value would swallow the next field.  Such values are refused
here with the reason: what is accepted comes back exactly.

``config getprop`` runs through this module, hence plain classes and no imports.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What e-smith trims: Perl's \s on bytes.
BLANKS = " \t\n\r\f\v"

HEAD = (
    "# DO NOT MODIFY THIS FILE.\n"
    "# This file is maintained by smeconf and by the tools of SME Server.\n"
    "# Changes made by hand may be lost: use the commands db and config.\n"
    "#\n"
    "# updated: never\n"
)


class FormatError(ValueError):
    """A key, type, property or value that the file format cannot hold."""


def encode(value: str) -> str:
    """Return ``value`` as it stands in the file.

    Raises FormatError where it would not come back the same.
    """
    if "\\n" in value:
        raise FormatError(
            "a backslash followed by n cannot be stored: it would be read as a newline"
        )
    if value.endswith("\\"):
        raise FormatError(
            "a backslash at the end cannot be stored: it would join the next field"
        )
    if value and value[-1] in BLANKS:
        raise FormatError(
            "a blank at the end cannot be stored: blanks at a record's end are dropped"
        )
    return _escape(value)


def _escape(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", "\\n")


def decode(field: str) -> str:
    """Return the value of a stored field."""
    if "\\" not in field:
        return field
    return field.replace("\\|", "|").replace("\\n", "\n")


def check_key(key: str) -> None:
    """Raise FormatError unless ``key`` can name a record."""
    if not key:
        raise FormatError("a key cannot be empty")
    if key.strip(BLANKS) != key:
        raise FormatError(f"key {key!r}: a key cannot begin or end with a blank")
    if key[0] == "#":
        raise FormatError(f"key {key!r}: a line that begins with # is a comment")
    for character, name in (("=", "an equals sign"), ("\n", "a newline")):
        if character in key:
            raise FormatError(f"key {key!r}: a key cannot hold {name}")


def check_property(name: str) -> None:
    """Raise FormatError unless ``name`` can name a property."""
    if not name:
        raise FormatError("a property's name cannot be empty")
    for text, what in (("|", "a |"), ("\n", "a newline"), ("\\", "a backslash")):
        if text in name:
            raise FormatError(f"property {name!r}: a property cannot hold {what}")
    if name[-1] in BLANKS:
        raise FormatError(f"property {name!r}: a name cannot end with a blank")


def _check_type(type: str) -> None:
    if type.strip(BLANKS) != type:
        raise FormatError(f"type {type!r}: a type cannot begin or end with a blank")
    try:
        encode(type)
    except FormatError as error:
        raise FormatError(f"type {type!r}: {error}") from None


def byte_order(text: str) -> bytes:
    """Sort key: the order of the bytes on disk, as e-smith sorts."""
    return text.encode("utf-8", "surrogateescape")


class Record:
    """One record: its type (or, of a single-value key, the value) and properties."""

    __slots__ = ("properties", "type")

    def __init__(self, type: str, properties: Mapping[str, str] | None = None) -> None:
        self.type = type
        self.properties = dict(properties or {})

    @classmethod
    def parse(cls, raw: str) -> Record:
        """Read the part of a line after the first ``=``.  Never raises."""
        fields = raw.split("|")
        if "\\" in raw:
            fields = _join_escaped(fields)
        names = fields[1::2]
        values = fields[2::2]
        if len(values) < len(names):
            values.append("")
        return cls(
            decode(fields[0]), dict(zip(names, map(decode, values), strict=True))
        )

    def format(self, stored: Record | None = None) -> str:
        """Return the part of the line after ``=``, properties in byte order.

        Raises FormatError naming what the format cannot hold.  Of ``stored``, the
        record as it was, what e-smith wrote and we would refuse may stay, as long as
        it comes back the same.
        """
        if stored is None or self.type != stored.type:
            _check_type(self.type)
        kept = {} if stored is None else stored.properties
        fields = [_escape(self.type)]
        for name in sorted(self.properties, key=byte_order):
            value = self.properties[name]
            if kept.get(name) != value:
                check_property(name)
                try:
                    encode(value)
                except FormatError as error:
                    raise FormatError(f"property {name}: {error}") from None
            fields += (name, _escape(value))
        raw = "|".join(fields)
        if stored is not None and Record.parse(raw.strip(BLANKS)) != self:
            raise FormatError(
                "what is stored ends in a blank or a backslash, and would not come "
                "back the same beside this change"
            )
        return raw

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Record)
            and self.type == other.type
            and self.properties == other.properties
        )

    __hash__ = None  # type: ignore[assignment]  # a record can be changed

    def __repr__(self) -> str:
        return f"Record({self.type!r}, {self.properties!r})"


def _join_escaped(pieces: list[str]) -> list[str]:
    """Join what was split at a ``|`` that a backslash precedes."""
    fields = [pieces[0]]
    for piece in pieces[1:]:
        if fields[-1].endswith("\\"):
            fields[-1] += "|" + piece
        else:
            fields.append(piece)
    return fields


class Document:
    """The text of one database: look up, change, and give the text back.

    Only the lines of changed records differ afterwards: comments, odd lines and
    records written by others stay as they were.  Of a key that stands twice the last
    line counts, as in e-smith, and a change leaves that one alone.

    The first few keys are sought in the text as it is; only when more are wanted is
    every line looked at.  Most commands want one.
    """

    __slots__ = ("_added", "_lines", "_places", "_shadowed", "_sought", "_text")

    def __init__(self, text: str) -> None:
        if text and not text.endswith("\n"):
            text += "\n"  # cut short, or written by hand
        self._text = text
        self._sought = 0
        self._lines: list[str | None] = []
        self._places: dict[str, int] | None = None  # key -> number of its line
        self._shadowed: dict[str, list[int]] = {}  # earlier lines of a key
        self._added: dict[str, str] = {}  # records that have no line yet

    def __contains__(self, key: str) -> bool:
        return self.find_raw(key) is not None

    def __len__(self) -> int:
        return len(self._read_all()) + len(self._added)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        """Return the keys in byte order."""
        return sorted([*self._read_all(), *self._added], key=byte_order)

    @property
    def revision(self) -> int | None:
        """The revision that the head names; None where e-smith wrote the file."""
        for line in _head_of(self._text):
            if line.startswith(_UPDATED):
                number = line.rpartition(" (revision ")[2].removesuffix(")")
                return int(number) if number.isdigit() and number.isascii() else None
        return None

    def find_raw(self, key: str) -> str | None:
        """Return the stored text of a record (``type|prop|value…``), or None."""
        if span := self._find_span(key):
            return self._text[span[0] : span[1]].partition("=")[2].strip(BLANKS)
        number = self._read_all().get(key)
        if number is None:
            return self._added.get(key)
        line = self._lines[number]
        assert line is not None
        return line.partition("=")[2].strip(BLANKS)

    def find(self, key: str) -> Record | None:
        """Return a copy of a record, or None."""
        raw = self.find_raw(key)
        return None if raw is None else Record.parse(raw)

    def put(self, key: str, record: Record) -> bool:
        """Write a record, new or in place of the old one; tell whether it differs.

        Raises FormatError, and changes nothing, where the format cannot hold it.
        """
        check_key(key)
        old = self.find_raw(key)
        raw = record.format(None if old is None else Record.parse(old))
        if old == raw:
            return False
        if span := self._find_span(key):
            start, end = span
            self._text = f"{self._text[:start]}{key}={raw}{self._text[end:]}"
            return True
        number = self._read_all().get(key)
        if number is None:
            self._added[key] = raw
        else:
            self._drop_shadowed(key)
            self._lines[number] = f"{key}={raw}"
        return True

    def delete(self, key: str) -> None:
        """Remove a record.  Raises KeyError if there is none."""
        places = self._read_all()
        if key in self._added:
            del self._added[key]
        else:
            self._lines[places.pop(key)] = None
            self._drop_shadowed(key)

    def text(self, updated: str) -> str:
        """Return the whole text, its head saying that it was ``updated`` (a date)."""
        text = self._text if self._places is None else self._join_lines()
        if not text.startswith("#"):
            text = HEAD + text
        start = 0
        for line in _head_of(text):
            if line.startswith(_UPDATED):
                return f"{text[:start]}{_UPDATED} {updated}{text[start + len(line) :]}"
            start += len(line) + 1
        return text

    def _find_span(self, key: str) -> tuple[int, int] | None:
        """Return where the line of a key begins and ends in the text; None where only
        a look at every line can tell."""
        self._sought += 1
        if self._places is not None or self._sought > _SEEK or not key:
            return None
        text = self._text
        before = text.rfind(f"\n{key}=")
        if before < 0 or text.find(f"\n{key}=", 0, before) >= 0 or key[0] == "#":
            return None
        for blank in " \t\r\f\v":  # beside a key, they are no part of it
            if f"\n{key}{blank}" in text or f"\n{blank}" in text:
                return None
        return before + 1, text.find("\n", before + 1)

    def _read_all(self) -> dict[str, int]:
        """Look at every line, once; return the places of the keys."""
        if self._places is not None:
            return self._places
        self._lines = list(self._text.split("\n"))
        self._lines.pop()
        places: dict[str, int] = {}
        self._places = places
        for number, line in enumerate(self._text.split("\n")):
            key = line.partition("=")[0].strip(BLANKS)
            if key and key[0] != "#":
                if key in places:
                    self._shadowed.setdefault(key, []).append(places[key])
                places[key] = number
        return places

    def _join_lines(self) -> str:
        added = sorted(self._added, key=byte_order, reverse=True)
        places = self._read_all()
        keys = {number: key for key, number in places.items()} if added else {}
        text: list[str] = []
        for number, line in enumerate(self._lines):
            if line is None:
                continue
            while added and number in keys and added[-1] < keys[number]:
                key = added.pop()
                text.append(f"{key}={self._added[key]}\n")
            text.append(line + "\n")
        text += (f"{key}={self._added[key]}\n" for key in reversed(added))
        return "".join(text)

    def _drop_shadowed(self, key: str) -> None:
        for number in self._shadowed.pop(key, ()):
            self._lines[number] = None


_UPDATED = "# updated:"
_SEEK = 6  # keys to seek in the text before reading all of it is cheaper


def _head_of(text: str) -> Iterator[str]:
    """Yield the lines of comment that a text begins with."""
    start = 0
    while text.startswith("#", start):
        end = text.find("\n", start)
        yield text[start : len(text) if end < 0 else end]
        start = len(text) if end < 0 else end + 1
