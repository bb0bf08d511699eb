"""Every place that smeconf reads or writes.

All places of the machine lie below one root (``--root`` or ``SMECONF_ROOT``, else
``/``), so that a second instance or a test is a directory of its own.  What travels
with the product (templates, events, schema) lies beside the code.

Strings and ``os.path`` on purpose: ``config getprop`` starts through this module, and
``pathlib`` alone would cost it a third of its time.
"""

from __future__ import annotations

import os

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_INSTALLED_SHARE = os.path.join(_PACKAGE, "share")

# In a wheel the shipped trees are package data; in a checkout they are at the top.
SHARE = (
    _INSTALLED_SHARE if os.path.isdir(_INSTALLED_SHARE) else os.path.dirname(_PACKAGE)
)

# e-smith's variables that replace the file of one typed database.
_DATABASE_VARIABLES = {
    "configuration": "ESMITH_CONFIG_DB",
    "accounts": "ESMITH_ACCOUNT_DB",
    "domains": "ESMITH_DOMAINS_DB",
    "hosts": "ESMITH_HOSTS_DB",
    "networks": "ESMITH_NETWORKS_DB",
}


def generation_file(directory: str) -> str:
    """Return the file beside a directory that names what was installed in it."""
    return os.path.realpath(directory) + ".generation"


def shipped(tree: str) -> str:
    """Return the directory of a shipped tree: ``templates``, ``events`` or ``db``."""
    return os.path.join(SHARE, tree)


class Paths:
    """The places below one root.

    ``root`` is the directory that everything lies under; empty or None means
    ``SMECONF_ROOT`` and, where that is not set, ``/``.
    """

    __slots__ = ("root",)

    def __init__(self, root: str | None = None) -> None:
        self.root = os.path.abspath(root or os.environ.get("SMECONF_ROOT") or "/")

    def under(self, path: str) -> str:
        """Return where ``path`` (with or without a leading slash) lies on disk."""
        return os.path.join(self.root, path.lstrip("/"))

    def database(self, name: str) -> str:
        """Return the file of database ``name``, by e-smith's rules.

        ``DBPATH`` is put before any name; ``ESMITH_CONFIG_DB`` and its siblings name
        the file of one typed database; an absolute name is taken as it is; else the
        file lies in ``home/e-smith/db`` (or, if only the place of old versions has
        it, in ``home/e-smith``).
        """
        if directory := os.environ.get("DBPATH"):
            return os.path.join(directory, name.lstrip("/"))
        variable = _DATABASE_VARIABLES.get(name)
        if variable and (path := os.environ.get(variable)):
            return path
        if name.startswith("/"):
            return name
        path = os.path.join(self.databases, name)
        if not os.path.exists(path):
            legacy = os.path.join(self.root, "home/e-smith", name)
            if os.path.isfile(legacy):
                return legacy
        return path

    @property
    def databases(self) -> str:
        """The directory of the databases: SME's place."""
        return self.under("home/e-smith/db")

    @property
    def site(self) -> str:
        """The site's own layer: templates-custom, events and db."""
        return self.under("etc/smeconf")

    @property
    def state(self) -> str:
        """Locks, history and journals of the configuring half."""
        return self.under("var/lib/smeconf")

    def service_config(self, service: str) -> str:
        """Return the generated configuration directory of a mail service."""
        return self.under(f"var/service/{service}/config")

    def service_run(self, service: str) -> str:
        """Return the directory of a service's process id file and control socket."""
        return self.under(f"run/{service}")
