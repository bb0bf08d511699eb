"""Which log the configuration asks for, and opening it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from smeconf.smtpd.config import ConfigError, Directory
from smeconf.smtpd.listeners import Identity
from smeconf.smtpd.log import Log
from smeconf.smtpd.log_targets import File, Stream, Syslog, Target, open_log
from smeconf.smtpd.message_log import MessageLog

_TARGETS = ("stderr", "file", "syslog", "journal")
_FORMATS = ("text", "json")

_DIRECTORY = "var/log/qpsmtpd"
_LOG = "current"
_MESSAGES = "messages.json"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where lines go, and whether there is an object of JSON a message beside them."""

    target: str = "stderr"
    has_json: bool = False

    @classmethod
    def read(cls, directory: Directory) -> LogSettings:
        """Read ``log_target`` and ``log_format``.  Raises ConfigError with the line."""
        target = directory.first("log_target", _one_of(_TARGETS), "stderr")
        form = directory.first("log_format", _one_of(_FORMATS), "text")
        return cls(target, form == "json")

    @property
    def files(self) -> list[str]:
        """The files that are written to, below the root."""
        names = [_LOG] if self.target == "file" else []
        names += [_MESSAGES] if self.has_json else []
        return [f"{_DIRECTORY}/{name}" for name in names]


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {text!r}")
        return text

    return parse


def prepare_log(settings: LogSettings, root: str, identity: Identity) -> None:
    """Make directory and files for the filter's user.

    Raises ConfigError naming what cannot be made.
    """
    try:
        if settings.files:
            _make_directory(os.path.join(root, _DIRECTORY), identity)
        for name in settings.files:
            file = open_log(os.path.join(root, name))
            try:
                if identity.is_change:
                    _give(file, os.path.join(root, name), identity)
            finally:
                os.close(file)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error


def _give(file: int, path: str, identity: Identity) -> None:
    """Make the filter's user own a file."""
    facts = os.fstat(file)
    if (facts.st_uid, facts.st_gid) == (identity.uid, identity.gid):
        return
    # That user owns the directory, and could have put a second name of any file here.
    if facts.st_nlink > 1:
        raise OSError(0, "has a second name: remove it", path)
    os.fchown(file, identity.uid, identity.gid)


def _make_directory(path: str, identity: Identity) -> None:
    os.makedirs(path, exist_ok=True)
    if identity.is_change:
        os.chown(path, identity.uid, identity.gid)


class LogOutlet:
    """What a log writes to by its settings.

    Raises ConfigError where that cannot be opened.
    """

    def __init__(self, settings: LogSettings, root: str) -> None:
        self._settings = settings
        self._root = root
        self._opened: list[File | Stream] = []
        files: list[File] = []
        try:
            for name in settings.files:
                has_times = not name.endswith(_MESSAGES)
                path = os.path.join(root, name)
                files.append(File(path, has_times=has_times))
                self._opened.append(files[-1])
        except OSError as error:
            self.close()
            raise ConfigError(
                f"{error.filename}: {error.strerror}: see LogTarget and LogFormat"
            ) from error
        self._messages = MessageLog(files[-1]) if settings.has_json else None
        is_file = settings.target == "file"
        self._target = files[0] if is_file else self._open_other(settings.target)

    def for_settings(self, settings: LogSettings) -> LogOutlet:
        """Return the outlet of other settings: this one, where they are the same.

        Raises ConfigError where it cannot be opened.
        """
        if settings == self._settings:
            return self
        return LogOutlet(settings, self._root)

    def attach(self, log: Log) -> None:
        """Have a log write to it."""
        log.target, log.messages = self._target, self._messages

    def close(self) -> None:
        """Let go of what it opened."""
        for one in self._opened:
            one.close()

    def _open_other(self, target: str) -> Target:
        if target == "syslog":
            below = os.path.join(self._root, "dev/log")
            return Syslog(below if os.path.exists(below) else "/dev/log")
        stream = Stream(has_levels=target == "journal" and _is_journal())
        stream.never_wait()
        self._opened.append(stream)
        return stream


def _is_journal() -> bool:
    """Tell whether standard error is what systemd connected with its journal."""
    facts = os.fstat(2)
    return os.environ.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}"
