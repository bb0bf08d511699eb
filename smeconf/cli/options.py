"""The options of commands whose wrong usage is 255, as SME's scripts know it."""

from __future__ import annotations


def take_root(words: list[str]) -> tuple[str | None, list[str]]:
    """Return the value of a leading ``--root``, and the words behind it."""
    if words[:1] == ["--root"] and len(words) > 1:
        return words[1], words[2:]
    if words and words[0].startswith("--root="):
        return words[0].removeprefix("--root="), words[1:]
    return None, words
