r"""Words as a shell splits them: for the lines of ``batch``, and for completion.

``'…'`` holds all as it is, ``"…"`` all but ``\"``, ``\\``, ``\$`` and ``\```, and a
backslash outside of quotes takes the next character as it is.  Nothing is expanded.
Of the standard library, ``shlex`` needs nine seconds for a value of a megabyte.
"""

from __future__ import annotations

import re

_PIECE = re.compile(
    r"""(?P<plain>[^ \t\r\n'"\\]+)"""
    r"""|'(?P<single>[^']*)(?P<closed1>'?)"""
    r"""|"(?P<double>[^"\\]*(?:\\.[^"\\]*)*)(?P<closed2>"?)"""
    r"""|\\(?P<escaped>.)"""
    r"""|(?P<blanks>[ \t\r\n]+)""",
    re.DOTALL,
)
_IN_DOUBLE = re.compile(r'\\(["\\$`])')


class Split:
    """A text, split.

    ``words`` are without their quotes.  ``start`` is where the last one begins in the
    text, ``open`` the quote (or backslash) that the text leaves open, else empty.
    Behind a blank, the last word is an empty one that begins at the end.
    """

    __slots__ = ("open", "start", "words")

    def __init__(self, text: str) -> None:
        self.words = [""]
        self.start = 0
        self.open = ""
        is_begun = False
        position = 0
        while position < len(text):
            match = _PIECE.match(text, position)
            if match is None:  # a backslash at the end, alone or in double quotes
                self.open = "\\"
                break
            position = match.end()
            if match["blanks"]:
                if is_begun:
                    self.words.append("")
                    is_begun = False
                self.start = position
                continue
            is_begun = True
            self.words[-1] += self._read(match)

    def _read(self, match: re.Match[str]) -> str:
        kind = match.lastgroup
        if kind == "closed1":
            self.open = "" if match["closed1"] else "'"
            return match["single"]
        if kind == "closed2":
            self.open = "" if match["closed2"] else '"'
            return _IN_DOUBLE.sub(r"\1", match["double"])
        return match[0] if kind == "plain" else match["escaped"]


def split_line(line: str) -> list[str]:
    """Return the words of a line.  Raises ValueError where a quote is never closed."""
    if "'" not in line and '"' not in line and "\\" not in line:
        line = line.replace("\t", " ").replace("\r", " ").replace("\n", " ")
        return [word for word in line.split(" ") if word]
    split = Split(line)
    if split.open == "\\":
        raise ValueError("No escaped character")
    if split.open:
        raise ValueError("No closing quotation")
    if split.start == len(line):  # what follows the last blank, or nothing
        split.words.pop()
    return split.words
