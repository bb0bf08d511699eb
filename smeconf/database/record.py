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
    if not value.isascii() and not _is_of_bytes(value):
        raise FormatError("lone surrogates cannot be stored: they are no text")
    return _escape(value)


def _is_of_bytes(text: str) -> bool:
    """Tell whether these bytes come back as this text; bytes that are no UTF-8 are
    surrogates in it."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return data.decode("utf-8", "surrogateescape") == text


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
    if not key.isascii() and not _is_of_bytes(key):
        raise FormatError(f"key {key!r}: a key cannot hold lone surrogates")
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
    if not name.isascii() and not _is_of_bytes(name):
        raise FormatError(f"property {name!r}: a name cannot hold lone surrogates")


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
        for name, value in self.properties.items():
            if kept.get(name) != value:
                check_property(name)
                try:
                    encode(value)
                except FormatError as error:
                    raise FormatError(f"property {name}: {error}") from None
        fields = [_escape(self.type)]
        for name in sorted(self.properties, key=byte_order):
            fields += (name, _escape(self.properties[name]))
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
    fields = []
    field: list[str] = []
    for piece in pieces:
        field.append(piece)
        if not piece.endswith("\\"):
            fields.append("|".join(field))
            field = []
    if field:
        fields.append("|".join(field))
    return fields


class Document:
    """The text of one database: look up, change, and give the text back.

    Only the lines of changed records differ afterwards: comments, odd lines and
    records written by others stay as they were.  Of a key that stands twice the last
    line counts, as in e-smith, and a change leaves that one alone.
    """

    __slots__ = ("_added", "_deleted", "_keys", "_lines", "_may_shadow", "_places")

    def __init__(self, text: str) -> None:
        lines = text.split("\n")
        if lines[-1] == "":
            lines.pop()
        self._lines = lines
        # The key of each line, and the last line of each key.
        self._keys = [line.partition("=")[0].strip(BLANKS) for line in lines]
        self._places = dict(zip(self._keys, range(len(lines)), strict=True))
        self._may_shadow = len(self._places) < len(lines)
        for key in [key for key in self._places if not key or key[0] == "#"]:
            del self._places[key]
        self._deleted: set[int] = set()  # numbers of lines
        self._added: dict[str, str] = {}  # records that have no line yet

    def __contains__(self, key: str) -> bool:
        return key in self._places or key in self._added

    def __len__(self) -> int:
        return len(self._places) + len(self._added)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        """Return the keys in byte order."""
        return sorted([*self._places, *self._added], key=byte_order)

    @property
    def revision(self) -> int | None:
        """The revision that the head names; None where e-smith wrote the file."""
        for line in self._lines:
            if not line.startswith("#"):
                break
            if line.startswith(_UPDATED):
                number = line.rpartition(" (revision ")[2].removesuffix(")")
                return int(number) if number.isdigit() and number.isascii() else None
        return None

    def find_raw(self, key: str) -> str | None:
        """Return the stored text of a record (``type|prop|value…``), or None."""
        number = self._places.get(key)
        if number is None:
            return self._added.get(key)
        return self._lines[number].partition("=")[2].strip(BLANKS)

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
        number = self._places.get(key)
        if number is None:
            self._added[key] = raw
        else:
            self._drop_shadowed(key, number)
            self._lines[number] = f"{key}={raw}"
        return True

    def delete(self, key: str) -> None:
        """Remove a record.  Raises KeyError if there is none."""
        if key in self._added:
            del self._added[key]
        else:
            number = self._places.pop(key)
            self._drop_shadowed(key, number)
            self._deleted.add(number)

    def text(self, updated: str) -> str:
        """Return the whole text, its head saying that it was ``updated`` (a date)."""
        lines = self._lines
        if self._added or self._deleted:
            lines = list(self._merged())
        if not lines or not lines[0].startswith("#"):
            lines = HEAD.rstrip("\n").split("\n") + lines
        for number, line in enumerate(lines):
            if not line.startswith("#"):
                break
            if line.startswith(_UPDATED):
                lines[number] = f"{_UPDATED} {updated}"
        return "\n".join(lines) + "\n"

    def _merged(self) -> Iterator[str]:
        """Yield the lines that stay, the new ones in their places among them."""
        added = sorted(self._added, key=byte_order, reverse=True)
        for number, line in enumerate(self._lines):
            key = self._keys[number]
            if self._places.get(key) == number:
                here = byte_order(key)
                while added and byte_order(added[-1]) < here:
                    new = added.pop()
                    yield f"{new}={self._added[new]}"
            if number not in self._deleted:
                yield line
        yield from (f"{new}={self._added[new]}" for new in reversed(added))

    def _drop_shadowed(self, key: str, number: int) -> None:
        """Delete the earlier lines of a key."""
        if self._may_shadow and self._keys.index(key) < number:
            earlier = enumerate(self._keys[:number])
            self._deleted.update(n for n, one in earlier if one == key)


_UPDATED = "# updated:"
