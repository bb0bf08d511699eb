"""tls: let clients turn on encryption (STARTTLS, RFC 3207).

Hooks     ehlo
Options   a path each, relative to the root: the certificate (with its chain), its key
Files     tls_ciphers       the ciphers of TLS 1.2, as OpenSSL writes them
          tls_before_auth   0: clients may log in without encryption
From      qpsmtpd{tlsCipher}      the ciphers
          qpsmtpd{TlsBeforeAuth}  1|0

The handshake is the server's; this plugin has the certificate, and logs who is
encrypted.  Where there is no certificate yet, encryption is not offered, and that is
said when the filter starts.  TLS 1.2 is the oldest version.
"""

from __future__ import annotations

import os
import ssl
import stat
from dataclasses import dataclass
from typing import Any

from smeconf.smtpd.hooks import DECLINED, Answer
from smeconf.smtpd.plugin import Context, Plugin, argument, lines
from smeconf.smtpd.state import Connection


class Tls(Plugin):
    """Holds the certificate."""

    @dataclass(frozen=True)
    class Settings:
        """Where the certificate and its key lie."""

        certificate: str = argument(0, "var/service/qpsmtpd/ssl/cert.pem", str)
        key: str = argument(1, "var/service/qpsmtpd/ssl/key.pem", str)
        ciphers: tuple[str, ...] = lines("tls_ciphers", str)

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        super().__init__(name, settings, context)
        paths = [
            os.path.join(context.root, path)
            for path in (settings.certificate, settings.key)
        ]
        self._missing = [path for path in paths if not os.path.exists(path)]
        if not self._missing:
            self.tls_context = self._load(*paths)

    def prepare(self, uid: int, gid: int) -> None:
        """Let the filter read its key at the next reload, when it is root no more."""
        key = os.path.join(self.context.root, self.settings.key)
        if os.geteuid() == 0 and uid != 0 and not self._missing:
            os.chown(key, -1, gid)
            os.chmod(key, stat.S_IMODE(os.stat(key).st_mode) | stat.S_IRGRP)

    def hook_ehlo(self, connection: Connection, name: str) -> Answer:
        """Log whether the connection is encrypted."""
        if connection.tls:
            self.log_pass(connection, connection.tls)
        else:
            self.log_skip(connection, "not encrypted")
        return DECLINED

    def _load(self, certificate: str, key: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        try:
            context.load_cert_chain(certificate, key)
            if self.settings.ciphers:
                context.set_ciphers(":".join(self.settings.ciphers))
        except (ssl.SSLError, OSError) as error:
            why = getattr(error, "reason", None) or error.strerror or error
            raise ValueError(f"{certificate}, {key}: cannot be used: {why}") from error
        return context

    def warnings(self) -> list[str]:
        """Say that encryption is not offered."""
        return [
            f"tls: {path} is not there: encryption is not offered "
            f"(smeconf init makes a certificate)"
            for path in self._missing
        ]
