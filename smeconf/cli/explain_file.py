"""What ``smeconf explain PATH[:LINE]`` tells.

Lines are counted in the file as it is on disk.  That may differ from what its template
makes now: the two are compared, and a line that only the disk has was made by no
fragment, or by what a fragment or a property was before.
"""

from __future__ import annotations

import difflib
import os

from smeconf.cli.explain_property import (
    LastChanges,
    change_as_object,
    change_in_words,
    shown,
)
from smeconf.cli.generated import GeneratedFiles
from smeconf.database import Database, Record
from smeconf.paths import Paths
from smeconf.templates import Expansion, TargetError
from smeconf.templates import sources as of_lines
from smeconf.templates.records import Read
from smeconf.templates.sources import LineSource

# A longer value does not push the columns behind it aside.
_WIDEST = 40


class FileOnDisk:
    """A generated file: what is on disk, and what its template makes now."""

    def __init__(self, paths: Paths, files: GeneratedFiles, path: str) -> None:
        """``path`` is one of the machine, below its root, or the real one.

        Raises TargetError for a path that no template makes, and what expanding
        raises.
        """
        self._paths = paths
        self._files = files
        self.path = _below(paths.root, path)
        file = files.find(self.path)
        if file is None:
            raise TargetError(f"/{self.path}: no template makes this file")
        expansion = files.expand(file)
        if expansion is None:
            raise TargetError(
                f"/{self.path}: its metadata says that it is to be removed"
            )
        self.expansion: Expansion = expansion
        self.made = of_lines.lines_of(expansion.text)
        self.found = self._read()
        self._changes: dict[str, LastChanges] = {}

    @property
    def secrets(self) -> set[str]:
        """What must not be shown."""
        return self._files.snapshot.secrets

    def line(self, number: int) -> tuple[str, LineSource | None]:
        """Return a line of the file on disk, and what made it; None: no template.

        Where there is no file yet, a line of what would be in it.  Raises TargetError
        for a number that is behind the last line.
        """
        lines = self.made if self.found is None else self.found
        if not 1 <= number <= len(lines):
            raise TargetError(f"/{self.path}: has {len(lines)} lines, no line {number}")
        place = number - 1
        if self.found is not None:
            place = _counterpart(self.found, self.made, place)
        source = None if place < 0 else self.expansion.lines[place]
        return of_lines.printable(lines[number - 1], self.secrets), source

    def in_words(self, read: Read) -> tuple[str, str, str]:
        """Return what was read, its value, and who set it."""
        value, change = self._value(read), self._change(read)
        if value is None:
            default = self._default(read)
            text, change = ("", "") if default is None else (shown(default), "default")
        else:
            text = "(secret)" if self._files.snapshot.is_secret(read) else shown(value)
            change = f"set {change}"
        return of_lines.describe(read), text, change

    def read_as_object(self, read: Read) -> dict[str, object]:
        """Return what was read, its value and who set it, for scripts."""
        database, key, name = read
        is_secret = self._files.snapshot.is_secret(read)
        value = self._value(read)
        change = None
        if key is not None:
            change = self._changes_of(database).find(key, name, value)
        return {
            "database": database,
            "key": key,
            "property": name,
            "value": None if is_secret else value,
            "secret": is_secret,
            "default": self._default(read),
            "set": change_as_object(change),
        }

    def _read(self) -> list[str] | None:
        try:
            with open(self._paths.under(self.path), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TargetError(f"/{self.path}: {error.strerror}") from error
        return of_lines.lines_of(data.decode("utf-8", "surrogateescape"))

    def _value(self, read: Read) -> str | None:
        record = self._record(read)
        if record is None or (read[2] is None and record.properties):
            return None
        return record.type if read[2] is None else record.properties.get(read[2])

    def _record(self, read: Read) -> Record | None:
        if read[1] is None:
            return None
        return self._files.snapshot.document(read[0]).find(read[1])

    def _default(self, read: Read) -> str | None:
        database, key, name = read
        record = self._record(read)
        if key is None:
            return None
        schema = self._files.snapshot.schema(database)
        known = schema.find(key, record.type if record else None)
        rule = None if known is None else known.find(name) if name else known.value
        return None if rule is None else rule.default

    def _change(self, read: Read) -> str:
        database, key, name = read
        if key is None:
            return ""
        value = self._value(read)
        return change_in_words(self._changes_of(database).find(key, name, value))

    def _changes_of(self, database: str) -> LastChanges:
        if database not in self._changes:
            opened = Database.open(database, self._paths)
            self._changes[database] = LastChanges(opened)
        return self._changes[database]


def as_text(file: FileOnDisk) -> str:
    """Return each line that the template makes, and behind it what makes it."""
    text = of_lines.as_text(file.expansion, file.secrets)
    if file.found is not None and file.found != file.made:
        text += (
            f"\n/{file.path} holds something else: it was edited by hand, or the "
            f"event has not run yet\n"
        )
    return text


def line_as_text(file: FileOnDisk, number: int) -> str:
    """Return one line of the file on disk, and what made it."""
    line, source = file.line(number)
    head = f"/{file.path}:{number}\nline      {line}\n"
    if source is None:
        return (
            f"{head}made by   no template: it was edited by hand, or the event has "
            f"not run yet\n"
        )
    rows = [
        f"{'' if n else 'made by':<10}{path}:{place}\n"
        for n, (path, place) in enumerate(source.places)
    ]
    reads = sorted(map(file.in_words, source.reads))
    widths = [max((len(words[n]) for words in reads), default=0) for n in (0, 1)]
    value_width = min(widths[1], _WIDEST)
    for n, (read, value, change) in enumerate(reads):
        words = f"{read:<{widths[0]}}  {value:<{value_width}}  {change}"
        rows.append(f"{'' if n else 'from':<10}{words}".rstrip() + "\n")
    if not reads:
        rows.append("from      no property: the fragment always makes it\n")
    return head + "".join(rows)


def as_object(file: FileOnDisk, number: int | None = None) -> dict[str, object]:
    """Return what made each line, or one line, for scripts."""
    if number is not None:
        line, source = file.line(number)
        return {"path": f"/{file.path}", **_line_as_object(file, number, line, source)}
    shown_lines = (of_lines.printable(line, file.secrets) for line in file.made)
    sources = zip(shown_lines, file.expansion.lines, strict=True)
    return {
        "path": f"/{file.path}",
        "is_as_made": file.found == file.made,
        "lines": [
            _line_as_object(file, n, line, source)
            for n, (line, source) in enumerate(sources, 1)
        ],
    }


def _line_as_object(
    file: FileOnDisk, number: int, line: str, source: LineSource | None
) -> dict[str, object]:
    places = source.places if source else ()
    reads = sorted(source.reads, key=of_lines.describe) if source else ()
    return {
        "line": number,
        "text": line,
        "fragments": [{"path": path, "line": place} for path, place in places],
        "properties": [file.read_as_object(read) for read in reads],
    }


def _below(root: str, path: str) -> str:
    """Return a path below the root, without a leading slash."""
    path = os.path.normpath(path)
    for top in (root, os.path.realpath(root)):
        if top != "/" and path.startswith(f"{top}/"):
            return path[len(top) + 1 :]
    return path.lstrip("/")


def _counterpart(found: list[str], made: list[str], place: int) -> int:
    """Return the place among the lines made of one that was found; -1: none."""
    matcher = difflib.SequenceMatcher(None, found, made, autojunk=False)
    for start, other, length in matcher.get_matching_blocks():
        if start <= place < start + length:
            return other + place - start
    if made.count(found[place]) == 1:  # it was moved
        return made.index(found[place])
    return -1
