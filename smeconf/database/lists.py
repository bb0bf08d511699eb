"""Comma lists, the form of ``RBLList`` and its like.

Blanks around an entry are dropped, and empty entries too.  An entry that holds a comma
is put in ``'`` or ``"``; a quote opens only where an entry begins, so in
``zone.example:Don't send`` it is an ordinary character.
"""

from __future__ import annotations


class ListError(ValueError):
    """A comma list that cannot be read; says which entry and why."""


def split_list(value: str) -> list[str]:
    """Return the entries of a comma list, without their quotes.

    Raises ListError for a quote that is never closed, or text behind a closing one.
    """
    entries: list[str] = []
    position = 0
    while position < len(value):
        if value[position] in " \t":
            position += 1
        elif value[position] in "'\"":
            entry, position = _quoted(value, position, len(entries) + 1)
            entries.append(entry)
        else:
            comma = value.find(",", position)
            end = len(value) if comma < 0 else comma
            entries.append(value[position:end].rstrip(" \t"))
            position = end + 1
    return [entry for entry in entries if entry]


def join_list(entries: list[str]) -> str:
    """Return the comma list of ``entries``, quoting those that need it.

    Raises ListError for an entry that needs both kinds of quotes.
    """
    return ",".join(map(_quote_if_needed, entries))


def _quoted(value: str, start: int, number: int) -> tuple[str, int]:
    """Read a quoted entry; return it and the position behind its comma."""
    quote = value[start]
    end = value.find(quote, start + 1)
    if end < 0:
        raise ListError(f"entry {number} opens a quote ({quote}) and never closes it")
    comma = value.find(",", end)
    rest = value[end + 1 : len(value) if comma < 0 else comma]
    if rest.strip(" \t"):
        raise ListError(
            f"entry {number} goes on behind its closing quote: {rest.strip()!r}"
        )
    return value[start + 1 : end], len(value) if comma < 0 else comma + 1


def _quote_if_needed(entry: str) -> str:
    if "," not in entry and entry[:1] not in ("'", '"') and entry.strip() == entry:
        return entry
    for quote in ('"', "'"):
        if quote not in entry:
            return quote + entry + quote
    raise ListError(f"an entry cannot hold a comma and both kinds of quotes: {entry!r}")
