"""Listening sockets, and giving up the privileges that opening them took."""

from __future__ import annotations

import errno
import os
import pwd
import socket

from smeconf.smtpd.config import ConfigError

Address = tuple[str, int]

# As many as may wait to be accepted; the kernel caps it by net.core.somaxconn.
BACKLOG = 4096


def open_listener(address: Address) -> socket.socket:
    """Return a listening socket; an empty host means all addresses, IPv6 and IPv4.

    Raises ConfigError naming the address that cannot be had.
    """
    host, port = address
    try:
        if host == "" and socket.has_dualstack_ipv6():
            try:
                return socket.create_server(
                    ("::", port),
                    family=socket.AF_INET6,
                    backlog=BACKLOG,
                    dualstack_ipv6=True,
                )
            except OSError as error:
                if error.errno in _IN_USE:
                    raise
                # IPv6 may be switched off in the kernel
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {show(address)}: {os.strerror(error.errno or 0)}"
        ) from error


def show(address: Address) -> str:
    """Return an address as people write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"


class Identity:
    """Whom the filter runs as.

    ``is_change`` says that the process is root's and must become another.
    """

    def __init__(self, name: str, root: str) -> None:
        """Look up ``name`` (the file ``user``).

        A user that does not exist is an error where the machine itself is served
        (``root`` is ``/``); elsewhere the caller goes on as who it is.
        """
        self.name = name
        self.uid, self.gid = os.geteuid(), os.getegid()
        self.is_change = False
        self.missing = False
        if self.uid != 0 or not name:
            return
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            if root == "/":
                raise ConfigError(
                    f"user {name} does not exist: make it, or name another "
                    f"(config setprop qpsmtpd User NAME)"
                ) from None
            self.missing = True
            return
        self.uid, self.gid = entry.pw_uid, entry.pw_gid
        self.is_change = self.uid != 0

    def assume(self) -> None:
        """Become that user for good."""
        if self.is_change:
            os.initgroups(self.name, self.gid)
            os.setgid(self.gid)
            os.setuid(self.uid)


_IN_USE = (errno.EADDRINUSE, errno.EACCES)
