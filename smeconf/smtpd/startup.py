"""What is done before the filter gives up its privileges."""

from __future__ import annotations

import importlib
import os

from smeconf.smtpd.config import ConfigError
from smeconf.smtpd.listeners import Identity
from smeconf.smtpd.loader import Configuration, import_all_plugins


def prepare(
    configuration: Configuration, identity: Identity, run_directory: str
) -> None:
    """Make the directories that the filter writes to, for its user.

    Raises ConfigError naming the one that cannot be made.
    """
    try:
        for path in (run_directory, configuration.spool):
            _make_directory(path, identity)
        for plugin in configuration.plugins():
            plugin.prepare(identity.uid, identity.gid)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error


def import_late_modules() -> None:
    """Import what would be imported at first use: the filter's user may be unable to
    read where Python is installed."""
    import_all_plugins()
    for name in (
        "concurrent.futures.thread",
        "dns.rdtypes.ANY.TXT",
        "dns.rdtypes.IN.A",
        "dns.rdtypes.IN.AAAA",
        "encodings.ascii",
        "encodings.idna",
        "uvloop",
    ):
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # uvloop is missing on some machines


def _make_directory(path: str, identity: Identity) -> None:
    os.makedirs(path, exist_ok=True)
    if identity.is_change:
        os.chown(path, identity.uid, identity.gid)
