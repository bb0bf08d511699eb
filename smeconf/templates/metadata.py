"""What ``metadata.toml`` says of a target: how its file is made, checked and installed.

It lies in the template's directory.  A key of the site's layer replaces the shipped
one; ``""``, ``[]`` and ``false`` switch a key off.

    owner, group    to whom the file belongs: names
    mode            octal in quotes, such as "0640"
    template        another template, whose fragments lie below the target's own
    comment         the style of the banner: "ini" is template-begin-ini; "none": none
    output          the file that is written, where it is not the target's path
    delete          true: the file is removed
    filter          a Jinja expression, whose value stands in the place of each ``line``
                    of the text; none drops the line
    check           words of a command that must accept the file, ``{}``, before it is
                    installed
    each            "DATABASE/TYPE": the target is expanded once for each record of the
                    type; {key} in ``output`` stands for the record's key
    queue           directories in etc/smeconf, the lowest first, that hold the target's
                    fragments in place of the standard layers

In a directory above targets it may say more:

    check_directory words of a command that must accept the whole directory, ``{}``
    generation      true: who reads the directory understands DIRECTORY.generation
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from smeconf.database.schema import nearest
from smeconf.templates.records import DATABASES

METADATA = "metadata.toml"


class TargetError(Exception):
    """A target without a template, or metadata that cannot be followed."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of a target or a directory; the defaults, where nothing is said.

    ``said`` names the file that each key comes from, of those that any file gives.
    """

    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    template: str = ""
    comment: str = ""
    output: str = ""
    delete: bool = False
    filter: str = ""
    check: tuple[str, ...] = ()
    each: str = ""
    queue: tuple[str, ...] = ()
    check_directory: tuple[str, ...] = ()
    generation: bool = False
    said: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that is checked as a whole.

    ``path`` has no leading slash; in ``check``, the words of the command, ``{}`` stands
    for the directory.
    """

    path: str
    check: tuple[str, ...]
    has_generation: bool


def plain_path(path: str) -> str:
    """Return a path below the root as targets are written: without a leading slash.

    Raises TargetError where it would lead out of the root, or leads nowhere.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in path:
        raise TargetError(
            f"{path!r} is no path below the root: name a file, without .."
        )
    return "/".join(parts)


def read_metadata(paths: Iterable[str]) -> Metadata:
    """Return what files say together; each counts more than those before it.

    Raises TargetError naming the file, the key, and what the key accepts.
    """
    values: dict[str, Any] = {}
    said: dict[str, str] = {}
    for path in paths:
        for key, value in _read_toml(path).items():
            values[key] = _accept(path, key, value)
            said[key] = path
    metadata = Metadata(**values, said=said)
    has_key = "{key}" in metadata.output
    if metadata.each and not has_key:
        example = 'such as output = "home/{key}/.forward"'
        raise TargetError(
            f"{said['each']}: each needs an output with {{key}}, {example}"
        )
    if has_key and not metadata.each:
        example = 'such as each = "accounts/user"'
        raise TargetError(f"{said['output']}: output has {{key}}: say each, {example}")
    return metadata


def _read_toml(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise TargetError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise TargetError(f"{path}: {error}") from error


def _accept(path: str, key: str, value: object) -> object:
    """Return a value as it is kept.  Raises TargetError."""
    if key not in _KEYS:
        likely = nearest(key, list(_KEYS)) or f"; known are {', '.join(_KEYS)}"
        raise TargetError(f"{path}: {key} is not known{likely}")
    accept, form = _KEYS[key]
    try:
        return accept(value)
    except ValueError:
        raise TargetError(f"{path}: {key} is {form}, not {value!r}") from None
    except TargetError as error:
        raise TargetError(f"{path}: {key}: {error}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _name(value: object) -> str:
    if not _text(value):
        raise ValueError
    return _text(value)


def _path(value: object) -> str:
    return plain_path(_text(value)) if value != "" else ""


def _mode(value: object) -> int:
    digits = _name(value)
    if len(digits) > 5 or not set(digits) <= set("01234567"):
        raise ValueError
    return int(digits, 8)


def _comment(value: object) -> str:
    if "/" in _text(value):
        raise ValueError
    return _text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    words = tuple(_text(word) for word in value)
    if words[:1] == ("",):
        raise ValueError
    return words


def _directories(value: object) -> tuple[str, ...]:
    return tuple(plain_path(name) for name in _words(value))


def _each(value: object) -> str:
    database, _, type = _text(value).partition("/")
    if value != "" and not (database and type and "/" not in type):
        raise ValueError
    if database and database not in DATABASES:
        known = nearest(database, list(DATABASES)) or f": say {', '.join(DATABASES)}"
        raise TargetError(f"there is no database {database}{known}")
    return _text(value)


_COMMAND = 'a list of words, such as ["true", "{}"]'

# What accepts the value of each key, and how that is written.
_KEYS: dict[str, tuple[Callable[[object], object], str]] = {
    "owner": (_name, 'a name, such as "root"'),
    "group": (_name, 'a name, such as "root"'),
    "mode": (_mode, 'octal in quotes, such as "0640"'),
    "template": (_path, 'a path, such as "etc/motd"'),
    "comment": (_comment, 'a style, such as "ini" or "none"'),
    "output": (_path, 'a path, such as "etc/motd"'),
    "delete": (_flag, "true or false"),
    "filter": (_text, 'an expression, such as "line if line else none"'),
    "check": (_words, _COMMAND),
    "each": (_each, 'a database and a type, such as "accounts/user"'),
    "queue": (_directories, 'a list of directories, such as ["templates-user"]'),
    "check_directory": (_words, _COMMAND),
    "generation": (_flag, "true or false"),
}
