"""The configuration directory, in qpsmtpd's formats.

A file is lines; blank ones and those that begin with ``#`` are dropped, both ends
trimmed.  ``$include NAME`` on a line of its own puts in another file.  A list that has
no file is empty.  Besides qpsmtpd's own files the directory holds some of ours:
``listen`` (``address@port`` or ``port`` a line), ``user``, ``workers``,
``dns_servers``.

``DIRECTORY.generation`` beside it names the whole, in JSON: ``{"id": …}``.  While an
installer is at work, or where it was killed, it also tells what to read meanwhile, so
that a filter which starts in the middle gets the last whole configuration:
``"unfinished"`` maps each file that is being changed to the name of the old one, or to
null where there was none.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from smeconf import dns
from smeconf.paths import generation_file

T = TypeVar("T")

DEFAULT_TIMEOUT_SECONDS = 300


class ConfigError(Exception):
    """A configuration that cannot be used: ``file:line: why``, one a line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a configuration file, and where it stands."""

    text: str
    file: str
    number: int

    def fault(self, why: object) -> ConfigError:
        """Return the error that names this line."""
        return ConfigError(f"{self.file}:{self.number}: {why}")


class Directory:
    """A configuration directory, as it was left by the last install that ended.

    ``generation`` names that, and is empty where nobody names it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not os.path.isdir(path):
            raise ConfigError(f"{path}: no such directory")
        self.generation, self._instead = _read_generation(path)

    def has_changed(self) -> bool:
        """Tell whether an install was begun or ended since this was made."""
        now = _read_generation(self.path)
        return now != (self.generation, self._instead)

    def lines(self, name: str) -> list[Line]:
        """Return the lines of a file; none where there is no such file.

        Raises ConfigError where it cannot be read.
        """
        return self._lines(name, ())

    def has(self, name: str) -> bool:
        """Tell whether there is such a file."""
        return any(os.path.isfile(path) for path in self._places(name))

    def names(self, folder: str) -> list[str]:
        """Return the files of a sub-directory, sorted; none where it is missing."""
        try:
            names = set(os.listdir(os.path.join(self.path, folder)))
        except FileNotFoundError:
            names = set()
        # What is being removed: its name may be gone already.
        names.update(
            name[len(folder) + 1 :]
            for name in self._instead
            if name.startswith(f"{folder}/")
        )
        return sorted(
            name
            for name in names
            if not _is_left_behind(name) and self.has(f"{folder}/{name}")
        )

    def parsed(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """Return what ``parse`` makes of each line.

        Raises ConfigError naming the line of which ``parse`` raises ValueError.
        """
        return tuple(parse_line(line, parse) for line in self.lines(name))

    def first(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Return what ``parse`` makes of the first line, or the default."""
        lines = self.lines(name)
        return parse_line(lines[0], parse) if lines else default

    def _lines(self, name: str, including: tuple[str, ...]) -> list[Line]:
        path = os.path.join(self.path, name)
        if path in including:
            raise ConfigError(f"{path}: includes itself")
        lines = []
        for number, raw in enumerate(self._read(name).split("\n"), 1):
            text = raw.strip()
            if text.startswith("$include "):
                lines += self._lines(text[9:].strip(), (*including, path))
            elif text and not text.startswith("#"):
                lines.append(Line(text, path, number))
        return lines

    def _read(self, name: str) -> str:
        """Return the text of a file; empty where there is none."""
        for path in self._places(name):
            text = _find_text(path)
            if text is not None:
                return text
        return ""

    def _places(self, name: str) -> list[str]:
        """Return where a file may be found, the first that is there being meant."""
        path = os.path.join(self.path, name)
        if os.path.normpath(name) not in self._instead:
            return [path]
        instead = self._instead[os.path.normpath(name)]
        # The old file, once it is back in its place, has lost its second name.
        return [] if instead is None else [os.path.join(self.path, instead), path]


def _read_generation(directory: str) -> tuple[str, dict[str, str | None]]:
    path = generation_file(directory)
    try:
        table = json.loads(_find_text(path) or '{"id": ""}')
        return table["id"], table.get("unfinished", {})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}:1: is not understood: remove it") from error


def _is_left_behind(name: str) -> bool:
    """Tell what installers, editors and package managers leave in a directory."""
    endings = ("~", ".swp", ".orig", ".rpmsave", ".rpmnew", ".rpmorig")
    return name.startswith(".") or name.endswith(endings) or ".edited" in name


def parse_line(line: Line, parse: Callable[[str], T]) -> T:
    """Return what ``parse`` makes of a line; a ValueError becomes a ConfigError."""
    try:
        return parse(line.text)
    except ValueError as error:
        raise line.fault(error) from error


@dataclass(frozen=True)
class ServerSettings:
    """What the server itself reads, not a plugin.

    ``databytes`` is the largest message, 0 for no limit; ``timeout_seconds`` how long
    a client may be silent; ``workers`` 0 for one a processor core; ``tls_before_auth``
    whether nobody may log in without encryption.
    """

    me: str
    greeting: str
    listen: tuple[tuple[str, int], ...]
    user: str
    workers: int
    dns_servers: tuple[tuple[str, int], ...]
    databytes: int
    timeout_seconds: int
    log_level: int
    tls_before_auth: bool = True

    @classmethod
    def read(cls, directory: Directory) -> ServerSettings:
        """Read them.  Raises ConfigError."""
        me = directory.first("me", _host_name, socket.gethostname())
        return cls(
            me=me,
            greeting=directory.first("smtpgreeting", str, me),
            listen=directory.parsed("listen", _listen) or (("", 25),),
            user=directory.first("user", str, ""),
            workers=directory.first("workers", whole_number, 0),
            dns_servers=directory.parsed("dns_servers", _dns_server)
            or tuple(dns.system_servers()),
            databytes=directory.first("databytes", whole_number, 0),
            timeout_seconds=directory.first(
                "timeoutsmtpd", whole_number, DEFAULT_TIMEOUT_SECONDS
            ),
            log_level=directory.first("loglevel", whole_number, 6),
            tls_before_auth=bool(directory.first("tls_before_auth", whole_number, 1)),
        )


def whole_number(text: str) -> int:
    """Read a whole number that is not negative.  Raises ValueError."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _host_name(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is no host name")
    return text


def _listen(text: str) -> tuple[str, int]:
    """Read ``port``, ``address`` or ``address@port``."""
    if text.isdigit():
        address, port = "", text
    else:
        address, _, port = text.partition("@")
        ipaddress.ip_address(address)
    number = whole_number(port or "25")
    if not 0 < number < 65536:
        raise ValueError(f"{port} is no port")
    return address, number


def _dns_server(text: str) -> tuple[str, int]:
    (server,) = dns.parse_servers([text])
    return server


def _find_text(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: is not in UTF-8") from error
    except ValueError as error:  # a name that no file can have
        raise ConfigError(f"{path!r}: cannot be read: {error}") from error
