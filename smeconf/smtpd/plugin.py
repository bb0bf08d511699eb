"""What every plugin is made of: its settings, its policy, its log words.

A plugin is one class in one file of ``smeconf.smtpd.plugins``:

    class Loop(Plugin):
        @dataclass(frozen=True)
        class Settings:
            max_hops: int = argument(0, 100)
            reject: Policy = option(Policy.REJECT)

        def hook_data_post(self, connection, message):
            ...
            return self.reject(connection, "Too many hops")

Settings are read once, when the plugin list is loaded: options from the plugin's line
(``loop 50 reject naughty``), lists from their own files.  They are frozen, and nothing
about one message may lie on the plugin: one object serves all connections at once.

A hook may be a plain function or ``async``.  The first step of an async hook runs
outside of any task, so one that needs ``asyncio.timeout`` must await something first;
the resolver and ``in_thread`` bring their own time limits.
"""

from __future__ import annotations

import asyncio
import enum
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from smeconf.dns import Resolver
from smeconf.smtpd.config import ConfigError, Directory, Line, whole_number
from smeconf.smtpd.hooks import DECLINED, HOOKS, Answer, Verdict
from smeconf.smtpd.log import DEBUG, ERROR, INFO, NOTICE, WARNING, Log
from smeconf.smtpd.state import Connection, Grievance

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")


class Policy(enum.Enum):
    """What becomes of a message that a plugin finds wanting."""

    TOLERATE = "0"
    REJECT = "1"
    NAUGHTY = "naughty"


class RejectType(enum.Enum):
    """How a refusal is put: for good or for now, and whether the client goes."""

    PERM = Verdict.DENY
    TEMP = Verdict.DENYSOFT
    DISCONNECT = Verdict.DENY_DISCONNECT
    TEMP_DISCONNECT = Verdict.DENYSOFT_DISCONNECT


_REJECT_TYPES = {
    "perm": RejectType.PERM,
    "hard": RejectType.PERM,
    "temp": RejectType.TEMP,
    "soft": RejectType.TEMP,
    "disconnect": RejectType.DISCONNECT,
    "temp_disconnect": RejectType.TEMP_DISCONNECT,
}


@dataclass(frozen=True)
class Context:
    """What the server hands to every plugin.

    ``me`` is the server's host name; ``spool`` a directory that it may write to;
    ``root`` is what relative paths of the configuration lie below.
    """

    me: str
    spool: str
    root: str
    resolver: Resolver
    log: Log


def option(default: T, parse: Callable[[str], T] | None = None) -> T:
    """A setting from the plugin's line, ``name value``; read by the default's type."""
    return field(default=default, metadata={"parse": parse})


def argument(position: int, default: T, parse: Callable[[str], T] | None = None) -> T:
    """A setting from the plugin's line by its place, in front of any options."""
    metadata = {"parse": parse, "position": position}
    return field(default=default, metadata=metadata)


def lines(file: str, parse: Callable[[str], T]) -> tuple[T, ...]:
    """A setting from a list file of the configuration directory, one a line."""
    metadata = {"parse": parse, "file": file}
    return cast("tuple[T, ...]", field(default=(), metadata=metadata))


class Plugin:
    """The base of all plugins.

    ``name`` is the one of its line in the plugin list.  The class variables tell the
    loader what only some plugins do: carry out refusals that were put off, or end the
    hook ``rcpt`` by accepting.
    """

    # Of the one that has a certificate.
    tls_context: ssl.SSLContext | None = None
    executes_naughty: ClassVar[bool] = False
    ends_rcpt: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Settings:
        """No settings."""

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        self.name = name
        self.settings = settings
        self.context = context
        self.resolver = context.resolver

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in vars(cls):
            if name.startswith("hook_") and name[5:] not in HOOKS:
                raise TypeError(f"{cls.__name__}.{name}: there is no such hook")

    def prepare(self, uid: int, gid: int) -> None:
        """Make what must be there before the filter drops its privileges, for that
        user.  Raises OSError."""

    def offers_login_to(self, connection: Connection) -> bool:
        """Tell whether a client may try to log in with this plugin."""
        return hasattr(self, "hook_auth")

    async def run(self) -> None:
        """Do what is to be done beside the connections, in each process that serves;
        cancelled when that ends."""

    def warnings(self) -> list[str]:
        """Return what an administrator should hear when this plugin is loaded."""
        return []

    def reject(
        self, connection: Connection, text: str, *, spares_role_accounts: bool = False
    ) -> Answer:
        """Apply the site's policy to what this plugin found; return its answer.

        ``text`` is for the client.  Tolerated: logged only.  Naughty: put off, for the
        plugin ``naughty`` to carry out.
        """
        policy: Policy = getattr(self.settings, "reject", Policy.REJECT)
        type: RejectType = getattr(self.settings, "reject_type", RejectType.PERM)
        if policy is Policy.TOLERATE:
            self.log(connection, INFO, f"fail, tolerated, {text}")
            return DECLINED
        if policy is Policy.NAUGHTY:
            self.log(connection, INFO, f"fail, naughty, {text}")
            connection.complain(Grievance(self.name, text, type, spares_role_accounts))
            return DECLINED
        self.log(connection, NOTICE, f"fail, {text}")
        return Answer(type.value, text)

    def log_pass(self, connection: Connection, text: str = "") -> None:
        """Log that all is well with the client or message, as far as we can tell."""
        self.log(connection, INFO, f"pass, {text}" if text else "pass")

    def log_skip(self, connection: Connection, text: str) -> None:
        """Log that nothing was looked at, and why."""
        self.log(connection, INFO, f"skip, {text}")

    def log_error(self, connection: Connection, text: str) -> None:
        """Log that the world failed us; the mail goes on."""
        self.log(connection, WARNING, f"error, {text}")

    def log(self, connection: Connection, level: int, text: str) -> None:
        """Write a line of this plugin about a connection."""
        log = self.context.log
        if log.messages is not None:
            where = connection.transaction
            connection.findings.add(where, self.name, connection.hook, text)
        if level <= log.level:
            log.line(level, f"{connection.id} ({connection.hook}) {self.name}: {text}")

    def log_server(self, level: int, text: str) -> None:
        """Write a line of this plugin that belongs to no connection."""
        self.context.log.server(level, f"{self.name}: {text}")

    def log_bug(self, connection: Connection, error: Exception) -> None:
        """Log an exception that this plugin let go: our fault, with its traceback."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.log(
            connection,
            ERROR,
            f"error, {type(error).__name__}: {error} "
            f"({os.path.basename(where.filename)}:{where.lineno})",
        )
        for line in traceback.format_exception(error):
            self.log(connection, DEBUG, line.rstrip())

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what blocks (a disk, say) in a thread; return what it returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, function, *arguments)


def read_settings(
    plugin: type[Plugin], words: list[str], line: Line, directory: Directory
) -> Any:
    """Return a plugin's settings from the words behind its name and its files.

    Raises ConfigError naming file and line.
    """
    values: dict[str, Any] = {}
    for setting in fields(plugin.Settings):
        if file := setting.metadata.get("file"):
            values[setting.name] = directory.parsed(file, setting.metadata["parse"])
    for name, word in _name_words(plugin, words, line).items():
        setting = next(s for s in fields(plugin.Settings) if s.name == name)
        try:
            values[name] = _read_value(word, setting.default, setting.metadata["parse"])
        except ValueError as error:
            raise line.fault(f"{name}: {error}") from error
    return plugin.Settings(**values)


def _name_words(plugin: type[Plugin], words: list[str], line: Line) -> dict[str, str]:
    """Tell which word belongs to which setting."""
    options = [s.name for s in fields(plugin.Settings) if "file" not in s.metadata]
    positions = sorted(
        (s.metadata["position"], s.name)
        for s in fields(plugin.Settings)
        if "position" in s.metadata
    )
    named: dict[str, str] = {}
    for _, name in positions:
        if words and words[0] not in options:
            named[name] = words[0]
            words = words[1:]
    if len(words) % 2:
        raise line.fault(f"option {words[-1]} has no value")
    for name, word in zip(words[::2], words[1::2], strict=True):
        if name not in options:
            known = ", ".join(options) or "none"
            raise line.fault(f"no option {name}; there are: {known}")
        named[name] = word
    return named


def _read_value(word: str, default: Any, parse: Callable[[str], Any] | None) -> Any:
    if parse is not None:
        return parse(word)
    if isinstance(default, Policy):
        try:
            return Policy(word)
        except ValueError:
            raise ValueError(f"must be 0, 1 or naughty, not {word!r}") from None
    if isinstance(default, RejectType):
        if word in _REJECT_TYPES:
            return _REJECT_TYPES[word]
        raise ValueError(f"must be one of {', '.join(_REJECT_TYPES)}, not {word!r}")
    if isinstance(default, int):
        return whole_number(word)
    return word


__all__ = [
    "ConfigError",
    "Context",
    "Plugin",
    "Policy",
    "RejectType",
    "argument",
    "lines",
    "option",
    "read_settings",
]
