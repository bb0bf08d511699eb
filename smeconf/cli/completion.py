"""What may stand next on a command line: completion for bash, zsh and fish.

The shells' scripts (``completions/``) ask one of two questions:

    config --complete COMMAND WORD…
        what the last word, which may be empty, may become: one answer a line, plain
    config --complete-bash COMMAND LINE TEXT
        the same for a line as it was typed up to the cursor, of which readline will
        replace TEXT: the answers are quoted to take its place

What verbs and options there are, and which words follow them, is read from the text
of each command's ``--help``.  Nothing here ever complains: a missing database, a
schema that cannot be read or a fault of ours is an empty answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator

from smeconf.cli.db_words import Split
from smeconf.database import Database, DatabaseError, Document, Record
from smeconf.database.history import looks_secret
from smeconf.database.lists import split_list
from smeconf.database.schema import Key, Property, Schema
from smeconf.paths import Paths, shipped

# Verbs that make the key or the property that they name.
_MAKING = ("set", "setdefault", "setprop", "listadd", "listdel", "help", "history")
_LEFT_BEHIND = (".lock", ".history", "~", ".new", ".orig", ".rpmsave", ".rpmnew")


def answer(words: list[str]) -> int:
    """Put out the candidates for ``--complete…`` and its words; return 0, always."""
    try:
        text = "".join(f"{line}\n" for line in _lines(words))
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.flush()
    except Exception:  # nobody wants a traceback amid what they type
        pass
    return 0


def _lines(words: list[str]) -> list[str]:
    how, command, *rest = words
    if how == "--complete-bash":
        line, text = rest
        return complete_line(command, line, text)
    return candidates(command, rest)


def candidates(command: str, words: list[str]) -> list[str]:
    """Return what may take the place of the last word, sorted and unquoted.

    ``words`` are those behind the name of the command.  Not only what begins as the
    last word does: shells have ways of their own to match.
    """
    *before, current = words or [""]
    if command in ("config", "db"):
        found = _of_database(command, before, current)
    elif command == "signal-event":
        found = _of_tool(command, before, current, _events)
    elif command == "expand-template":
        found = _of_tool(command, before, current, _targets)
    else:
        found = []
    plain = {word for word in found if word and _is_printable(word)}
    return sorted(plain)


def complete_line(command: str, line: str, text: str) -> list[str]:
    """Return what readline may put in place of ``text``, the end of ``line``.

    ``line`` goes from the command to the cursor.  Readline begins a word anew at
    ``:`` and ``=`` and behind an open quote; so ``text`` may be only the end of the
    last word.
    """
    split = Split(line)
    if split.open == "\\":
        return []
    typed = split.words[-1]
    raw = line[split.start :]
    kept = raw.removesuffix(text) if text else raw
    # The part of the last word that readline leaves as it stands.
    ahead = Split(kept).words[-1] if kept else ""
    names = [os.path.basename(word) for word in split.words]
    words = split.words[names.index(command) + 1 :]
    return [
        _quote(word[len(ahead) :], split.open)
        for word in candidates(command, words)
        if word.startswith(typed)
    ]


def _quote(text: str, quote: str) -> str:
    """Return ``text`` as it is typed at a place where that quote is open."""
    if quote == "'":
        return text.replace("'", "'\\''")
    special = '"\\$`' if quote else " \t!\"#$&'()*;<=>?[\\]^`{|}~"
    return "".join("\\" + one if one in special else one for one in text)


def _is_printable(word: str) -> bool:
    return not any(one < " " or one == "\x7f" for one in word)


# Options and verbs


class _Usage:
    """What the text of --help says: options (True: they take a value), and for each
    verb the words behind it."""

    def __init__(self, text: str) -> None:
        self.options: dict[str, bool] = {}
        self.verbs: dict[str, list[str]] = {}
        for line in text.splitlines():
            if not line.startswith("    ") or line[4:5] in ("", " "):
                continue
            word, *form = line.split()
            form = form[: next((n for n, w in enumerate(form) if not _is_slot(w)), 99)]
            if word.startswith("--"):
                self.options[word] = bool(form)
            else:
                self.verbs[word] = form


def _is_slot(word: str) -> bool:
    name = word.strip("[]…")
    return name.isalpha() and name.isupper()


def _slot(form: list[str], place: int) -> str:
    """Return what the word at that place (from 0) behind a verb is; empty: nothing.

    A form is ``KEY PROP VALUE [PROP VALUE]…``: of one that ends with ``…`` the last
    brackets, else the last word, go on and on.
    """
    if place >= len(form) and form and form[-1].endswith("…"):
        opened = [n for n, word in enumerate(form) if word.startswith("[")]
        begin = opened[-1] if opened else len(form) - 1
        place = begin + (place - begin) % (len(form) - begin)
    return form[place].strip("[]…") if place < len(form) else ""


class _Front:
    """The options in front of a command's words."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.awaiting = ""  # the option whose value is to come

    def take(self, words: list[str], options: dict[str, bool]) -> list[str]:
        """Read them; return the rest."""
        while words and words[0].startswith("--") and not self.awaiting:
            option, equals, value = words[0].partition("=")
            words = words[1:]
            if options.get(option) and not equals:
                if not words:
                    self.awaiting = option
                    break
                value, words = words[0], words[1:]
            if option == "--root":
                self.root = value
        return words

    def candidates(self, current: str, options: dict[str, bool]) -> list[str] | None:
        """Return what the current word may be where it is an option or the value of
        one, else None."""
        if self.awaiting:
            return _directories(current) if self.awaiting == "--root" else []
        if current.startswith("--root="):
            directories = _directories(current.removeprefix("--root="))
            return [f"--root={directory}" for directory in directories]
        return list(options) if current.startswith("-") else None


def _directories(begun: str) -> list[str]:
    place, name = os.path.split(begun)
    return [
        os.path.join(place, entry.name, "")
        for entry in _scan(place or ".")
        if entry.is_dir() and (name[:1] == "." or entry.name[0] != ".")
    ]


# db and config


def _of_database(command: str, before: list[str], current: str) -> Iterable[str]:
    from smeconf.cli.db import usage

    known = _Usage(usage(command))
    front = _Front()
    words = front.take(before, known.options)
    name = "configuration" if command == "config" else None
    if name is None and words:
        name, words = words[0], front.take(words[1:], known.options)
    if not words:
        found = front.candidates(current, known.options)
        if found is not None:
            return found
        return _databases(Paths(front.root)) if name is None else known.verbs
    verb, *given = words
    assert name is not None
    slot = _slot(known.verbs.get(verb, []), len(given))
    return _Words(verb, given, Database.open(name, Paths(front.root))).find(slot)


def _databases(paths: Paths) -> Iterator[str]:
    from smeconf.database._compiled import SCHEMA

    yield from SCHEMA
    for entry in _scan(os.path.dirname(paths.database("any"))):
        hidden = entry.name[0] == "." or entry.name.endswith(_LEFT_BEHIND)
        if entry.is_file() and not hidden:
            yield entry.name


class _Words:
    """The words that may follow a verb and those given already."""

    def __init__(self, verb: str, given: list[str], database: Database) -> None:
        self._verb = verb
        self._given = given
        self._database = database
        try:
            self._records = database.read()
        except DatabaseError:
            self._records = Document("")
        try:
            self._schema = database.schema
        except DatabaseError:
            self._schema = Schema({})

    def find(self, slot: str) -> Iterable[str]:
        """Return the words for one place, named as --help does."""
        finders = {
            "KEY": self._keys,
            "TYPE": self._types,
            "PROP": self._properties,
            "VALUE": self._values,
            "ITEM": self._items,
            "REVISION": self._revisions,
        }
        return finders[slot]() if slot in finders else ()

    def _keys(self) -> Iterator[str]:
        if self._verb != "help":
            yield from self._records
        if self._verb in _MAKING:
            yield from self._schema.known_keys()
        if self._verb == "help":
            yield from self._schema.known_types()
        if self._verb == "history":
            yield from (entry.key for entry in self._database.entries())

    def _types(self) -> Iterator[str]:
        """Types; of a single-value key, values."""
        known = self._known()
        record = self._record()
        if known is not None and known.value is not None:
            yield from _accepted(
                known.value, record.type if record is not None else None
            )
            return
        if record is not None:
            yield record.type
        if known is not None and known.type is not None:
            yield known.type
        elif self._schema.known_types():
            yield from self._schema.known_types()
            if not self._schema.known_keys():  # all keys are free, and alike
                for key in self._records:
                    other = self._records.find(key)
                    yield other.type if other else ""

    def _properties(self) -> Iterator[str]:
        """Properties of the key, but for those that are given already."""
        step = 2 if self._verb in ("setprop", "set", "setdefault") else 1
        first = 2 if self._verb in ("set", "setdefault") else 1
        taken = self._given[first::step]
        names = self._stored_and_known()
        return (name for name in names if name not in taken and name != "*")

    def _stored_and_known(self) -> Iterator[str]:
        record, known = self._record(), self._known()
        is_of_lists = self._verb in ("listadd", "listdel")
        if record is not None and self._verb != "help" and not is_of_lists:
            yield from record.properties
        if known is None or self._verb not in _MAKING:
            return
        for name, rule in known.properties.items():
            is_current = self._verb == "help" or not rule.obsolete
            if rule.is_list if is_of_lists else is_current:
                yield name

    def _values(self) -> Iterable[str]:
        record, name = self._record(), self._given[-1]
        rule = self._rule(name)
        now = record.properties.get(name) if record is not None else None
        if looks_secret(name):
            return ()
        return _accepted(rule or Property({}), now)

    def _items(self) -> list[str]:
        """For listdel what the list holds, for listadd what of its default it lacks."""
        name = self._given[-1]
        rule, record = self._rule(name), self._record()
        default = (rule.default if rule is not None else None) or ""
        value = record.properties.get(name, default) if record is not None else default
        held = split_list(value)
        if self._verb == "listdel":
            return held
        return [item for item in split_list(default) if item not in held]

    def _revisions(self) -> Iterator[str]:
        yield "0"
        yield from (str(entry.revision) for entry in self._database.entries())

    def _record(self) -> Record | None:
        return self._records.find(self._given[0])

    def _known(self) -> Key | None:
        """What is known of the key: as it is, or as the words make it."""
        key, *more = self._given
        record = self._record()
        type = record.type if record is not None else None
        if self._verb in ("set", "setdefault") and more:
            type = more[0]
        elif self._verb == "help":
            type = key
        return self._schema.find(key, type)

    def _rule(self, name: str) -> Property | None:
        known = self._known()
        return known.find(name) if known is not None else None


def _accepted(rule: Property, now: str | None) -> Iterator[str]:
    """Yield the values that a property may have, the one that it has now included."""
    if rule.secret:
        return
    kinds = {"switch": ("enabled", "disabled"), "flag": ("1", "0")}
    yield from rule.values or kinds.get(rule.kind, ())
    yield from (value for value in (now, rule.default) if value)


# signal-event and expand-template


def _of_tool(
    command: str,
    before: list[str],
    current: str,
    names: Callable[[Paths], Iterable[str]],
) -> Iterable[str]:
    """Return the options of a command, or in the first place behind them its names."""
    options = _options_of_tool(command)
    front = _Front()
    if front.take(before, options):
        return ()
    found = front.candidates(current, options)
    return names(Paths(front.root)) if found is None else found


def _options_of_tool(command: str) -> dict[str, bool]:
    """Read them from the first line of --help: ``[--root DIR]``, ``[--stdout]``."""
    from smeconf.cli import expand_template, signal_event

    tool = {"signal-event": signal_event, "expand-template": expand_template}[command]
    return {
        word.strip("[]"): not word.endswith("]")
        for word in tool._USAGE.split()
        if word.startswith("[--")
    }


def _events(paths: Paths) -> Iterator[str]:
    for root in (shipped("events"), os.path.join(paths.site, "events")):
        for entry in _scan(root):
            if entry.is_dir() and entry.name[0] != "." and entry.name != "actions":
                yield entry.name


def _targets(paths: Paths) -> Iterator[str]:
    """Yield the targets that have a template.

    A directory in which only files lie is a template; a file beside directories is
    one, too.
    """
    from smeconf.templates.layers import BEGIN, END

    for root in (shipped("templates"), os.path.join(paths.site, "templates-custom")):
        for place, directories, files in os.walk(root):
            target = place.removeprefix(root)
            if not directories and files and target:
                yield target
            elif directories:
                names = {n for n in files if not n.endswith((".toml", *_LEFT_BEHIND))}
                yield from (
                    f"{target}/{name}"
                    for name in names
                    if not name.startswith((BEGIN, END))
                )


def _scan(place: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return list(entries)
    except OSError:
        return []
