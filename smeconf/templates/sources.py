"""What made each line of a generated file: fragments, their lines, and properties."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from smeconf.templates.layers import BEGIN, END
from smeconf.templates.records import Read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from smeconf.templates.expand import Expansion

# A longer line does not push the columns behind it aside.
_WIDEST = 60

Place = tuple[str, int]  # the path of a fragment, and a line in it


@dataclass(frozen=True, slots=True)
class LineSource:
    """What made one line.

    ``fragment`` is the path of the fragment that the line begins in, ``line`` its line
    there; ``more`` are the other places that added to it.  ``reads`` are the
    properties that it holds, or that decided that it is there.
    """

    fragment: str
    line: int
    reads: frozenset[Read]
    more: tuple[Place, ...] = ()

    @property
    def places(self) -> tuple[Place, ...]:
        """Every fragment and line that added to the line, the first one first."""
        return ((self.fragment, self.line), *self.more)


class LineGatherer:
    """Joins the pieces of a text to lines, and says what made each of them.

    A line ends at a newline and nowhere else; what stands behind the last one is a
    line if there is anything.
    """

    def __init__(self) -> None:
        self._lines: list[LineSource] = []
        self._places: dict[Place, None] = {}  # in the order they came
        self._reads: set[Read] = set()

    def add(self, piece: str, place: Place, reads: frozenset[Read]) -> None:
        """Take the next piece of the text: where it was made, and of what."""
        *ended, rest = piece.split("\n")
        for _ in ended:
            self._places[place] = None
            self._reads |= reads
            self._end_line()
        if rest:
            self._places[place] = None
        if rest or not ended:  # an empty value is why there is nothing
            self._reads |= reads

    def finish(self) -> tuple[LineSource, ...]:
        """Return the source of each line of the text."""
        if self._places:
            self._end_line()
        return tuple(self._lines)

    def _end_line(self) -> None:
        (fragment, line), *more = self._places
        reads = frozenset(self._reads)
        self._lines.append(LineSource(fragment, line, reads, tuple(more)))
        self._places = {}
        self._reads = set()


def as_text(expansion: Expansion, secrets: Iterable[str] = ()) -> str:
    """Return the lines of a traced expansion, each with what made it behind it.

    ``secrets`` are not shown; ``snapshot.secrets`` are those of the databases.
    """
    shown = [printable(line, secrets) for line in lines_of(expansion.text)]
    places = in_words(expansion.lines)
    reads = [describe_all(line.reads) for line in expansion.lines]
    width = min(max(map(len, shown), default=0), _WIDEST)
    place_width = max(map(len, places), default=0)
    rows = (
        f"{line:<{width}}  {place:<{place_width}}  {read}".rstrip() + "\n"
        for line, place, read in zip(shown, places, reads, strict=True)
    )
    return "".join(rows)


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, without their ends, as LineGatherer counts them."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def in_words(lines: Sequence[LineSource]) -> list[str]:
    """Return ``fragment:line`` for each line; paths where one directory is not all."""
    folders = {
        os.path.dirname(path)
        for line in lines
        for path, _ in line.places
        if os.path.basename(path) not in (BEGIN, END)
    }
    name_of = os.path.basename if len(folders) < 2 else str
    return [
        " ".join(f"{name_of(path)}:{number}" for path, number in line.places)
        for line in lines
    ]


def describe(read: Read) -> str:
    """Return a read as people write it: ``qpsmtpd{RBLList}``, ``DomainName``."""
    database, key, name = read
    where = "" if database == "configuration" else f"{database} "
    if key is None:
        return f"{where}*{{{name}}}" if name else f"{database} (its keys)"
    return where + (f"{key}{{{name}}}" if name else key)


def describe_all(reads: Iterable[Read]) -> str:
    """Return reads in one line, sorted."""
    return ", ".join(sorted(map(describe, reads)))


def printable(line: str, secrets: Iterable[str] = ()) -> str:
    """Return a line as a terminal may show it, without the secrets in it."""
    for secret in sorted(secrets, key=len, reverse=True):
        line = line.replace(secret, "(secret)")
    if line.isprintable():
        return line
    return "".join(
        sign if sign.isprintable() or sign == "\t" else repr(sign)[1:-1]
        for sign in line
    )
