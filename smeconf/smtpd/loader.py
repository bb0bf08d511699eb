"""From a configuration directory to plugins that run: all of it, or an error.

Which list a client gets: ``peers/local`` for those that may relay, else the longest
``peers/PREFIX`` of its address (octets cut off from the right), else ``peers/0``.  A
directory without ``peers`` has one list for all, ``plugins``.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import shlex
import time
from dataclasses import dataclass, field
from functools import cache

from smeconf.dns import Resolver
from smeconf.smtpd import plugins as plugins_package
from smeconf.smtpd.address_list import AddressList
from smeconf.smtpd.config import ConfigError, Directory, Line, ServerSettings
from smeconf.smtpd.hooks import PluginList
from smeconf.smtpd.limits import Limits
from smeconf.smtpd.log import Log
from smeconf.smtpd.master_settings import MasterSettings
from smeconf.smtpd.plugin import Context, Plugin, Policy, read_settings

# A list made for SME's qpsmtpd names these; peers is ours by construction.
_NOT_NEEDED = frozenset({"peers"})
# An install takes milliseconds; what changes for longer is not one.
_SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Configuration:
    """A whole directory, loaded: what the server and its sessions run on."""

    settings: ServerSettings
    lists: dict[str, PluginList]
    relay_clients: AddressList
    resolver: Resolver
    log: Log
    spool: str
    directory: Directory
    limits: Limits = field(default_factory=Limits)

    @property
    def generation(self) -> str:
        """The name of what was loaded, empty where nobody named it."""
        return self.directory.generation

    def plugins_for(self, remote: str) -> PluginList:
        """Return the plugin list of a client by its address."""
        lists = self.lists
        if "local" in lists and self.relay_clients.has(remote):
            return lists["local"]
        if len(lists) > 1:
            prefix = remote
            while prefix:
                if prefix in lists:
                    return lists[prefix]
                prefix = prefix.rpartition("." if "." in prefix else ":")[0]
        return lists["0"]

    def plugins(self) -> list[Plugin]:
        """Return every plugin of every list."""
        return [plugin for one in self.lists.values() for plugin in one.plugins]


def load(path: str, root: str) -> Configuration:
    """Load the directory at ``path``; relative paths in it lie below ``root``.

    Raises ConfigError with every fault that was found, one a line.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        directory = Directory(path)
        try:
            loaded = _load(directory, root)
        except ConfigError:
            if not directory.has_changed() or time.monotonic() > deadline:
                raise
        else:
            if not directory.has_changed():
                return loaded
            if time.monotonic() > deadline:
                raise ConfigError(f"{path}: changes while it is read")


def _load(directory: Directory, root: str) -> Configuration:
    settings = ServerSettings.read(directory)
    MasterSettings.read(directory)
    log = Log(settings.log_level)
    context = Context(
        me=settings.me,
        spool=os.path.join(root, "var/spool/qpsmtpd"),
        root=root,
        resolver=Resolver(settings.dns_servers),
        log=log,
    )
    faults: list[str] = []
    lists: dict[str, PluginList] = {}
    for name, file in _list_files(directory).items():
        try:
            lists[name] = _load_list(directory, file, context)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return Configuration(
        settings=settings,
        lists=lists,
        relay_clients=AddressList.read(directory, "relayclients", "norelayclients"),
        resolver=context.resolver,
        log=log,
        spool=context.spool,
        directory=directory,
        limits=Limits.read(directory),
    )


def _list_files(directory: Directory) -> dict[str, str]:
    names = directory.names("peers")
    if names:
        if "0" not in names:
            raise ConfigError(f"{directory.path}/peers/0: missing: the list for all")
        return {name: f"peers/{name}" for name in names}
    if not directory.has("plugins"):
        raise ConfigError(f"{directory.path}: has neither peers/0 nor plugins")
    return {"0": "plugins"}


def _load_list(directory: Directory, file: str, context: Context) -> PluginList:
    """Load one list; every fault of it is in the ConfigError."""
    faults: list[str] = []
    loaded: list[tuple[Line, Plugin]] = []
    for line in directory.lines(file):
        try:
            plugin = _load_plugin(directory, line, context)
        except ConfigError as error:
            faults.append(str(error))
            continue
        if plugin is not None:
            loaded.append((line, plugin))
    if not faults:
        faults = _order_faults(loaded)
    if faults:
        raise ConfigError("\n".join(faults))
    return PluginList([plugin for _, plugin in loaded])


def _load_plugin(directory: Directory, line: Line, context: Context) -> Plugin | None:
    if not line.text.isascii() or not line.text.isprintable():
        raise line.fault("a plugin's line is printable ASCII")
    try:
        name, *words = shlex.split(line.text)
    except ValueError as error:
        raise line.fault(error) from error
    # NAME:1 and NAME:2 are two instances of one plugin.
    stem = name.partition(":")[0]
    if stem in _NOT_NEEDED:
        return None
    plugin = _find_class(stem)
    if plugin is None:
        near = difflib.get_close_matches(stem, known_plugins(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise line.fault(f"there is no plugin {stem}{hint}")
    settings = read_settings(plugin, words, line, directory)
    try:
        return plugin(name, settings, context)
    except ValueError as error:
        raise line.fault(f"{name}: {error}") from error


@cache
def known_plugins() -> tuple[str, ...]:
    """Return the names of all plugins, as they may stand in a plugin list."""
    package = plugins_package.__name__ + "."
    return tuple(
        sorted(
            module.name.removeprefix(package).replace(".", "/")
            for module in pkgutil.walk_packages(plugins_package.__path__, package)
            if not module.ispkg
        )
    )


def import_all_plugins() -> None:
    """Import every plugin, for a process that may be unable to do so later."""
    for name in known_plugins():
        _find_class(name)


@cache
def _find_class(name: str) -> type[Plugin] | None:
    """Return the plugin class of a module; None where there is no such module.

    A module has ``_`` where qpsmtpd's name of the plugin has ``-``.
    """
    stem = name.replace("-", "_")
    if stem not in known_plugins():
        return None
    dotted = stem.replace("/", ".")
    module = importlib.import_module(f"{plugins_package.__name__}.{dotted}")
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Plugin)
        and value.__module__ == module.__name__
    )
    return found


def _order_faults(loaded: list[tuple[Line, Plugin]]) -> list[str]:
    """Return what the order of a list makes ineffective, each with file and line."""
    faults = []
    executors = [n for n, (_, p) in enumerate(loaded) if p.executes_naughty]
    for number, (line, plugin) in enumerate(loaded):
        # A refusal that is put off must meet a plugin that carries it out.
        if getattr(plugin.settings, "reject", None) is Policy.NAUGHTY:
            late = hasattr(plugin, "hook_data_post") and number > max(executors or [0])
            if late or not executors:
                why = f"{plugin.name} rejects naughty, but no plugin naughty follows"
                faults.append(str(line.fault(why)))
        # Accepting a recipient ends the hook: what stands behind is never asked.
        if plugin.ends_rcpt:
            faults += (
                str(line.fault(f"{plugin.name} must stand behind {unasked.name}"))
                for _, unasked in loaded[number + 1 :]
                if hasattr(unasked, "hook_rcpt")
            )
    return faults
