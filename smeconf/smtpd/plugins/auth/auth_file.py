"""auth/auth_file: let in whom a file of names and hashed passwords knows.

Hook      auth
Options   networks              from where clients may log in: addresses, prefixes and
                                networks with commas between them; absent: everywhere
          first_delay_ms 1000   when the first failure of a connection is answered;
                                each further one takes twice as long,
          last_delay_ms 8000    at most this
From      qpsmtpd{Authentication}  enabled|disabled
          qpsmtpd{AuthAccess}      private (this machine and the local networks)|public
          networks{…}{Mask}        with its key, a local network

The file is var/lib/qpsmtpd/passwd below the root, which ``smeconf user`` writes; it is
read anew when it is another one, without a reload.  A name that is not in it is left
to the plugins behind, but takes as long as a wrong password does, so that nobody learns
which names there are.

To verify a password costs some 60 ms of a processor and 32 MB, on purpose.  Hence a
process does that twice at once and no more, in threads; the clients behind wait, and
those that would wait for seconds are told to come again.
"""

from __future__ import annotations

import asyncio
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from smeconf.smtpd.address_list import AddressList, parse_entry
from smeconf.smtpd.hooks import DECLINED, OK, Answer, Verdict, denysoft
from smeconf.smtpd.log import ERROR, NOTICE
from smeconf.smtpd.passwords import (
    MAX_NAME_BYTES,
    MAX_PASSWORD_BYTES,
    PASSWORD_FILE,
    UNKNOWN,
    PasswordError,
    PasswordFile,
    verify,
)
from smeconf.smtpd.plugin import Context, Plugin, option
from smeconf.smtpd.sasl import Credentials
from smeconf.smtpd.state import Connection

AT_ONCE = 2
# They wait for two seconds or so.
MAX_WAITING = 64

# Of the process, since every plugin list has a plugin of its own.  Threads come with
# the first login: there are none when the master forks.
_threads = ThreadPoolExecutor(AT_ONCE, "passwords")

# With the standard text, which a name that nobody knows gets, too.
_WRONG = Answer(Verdict.DENY)


def _networks(text: str) -> tuple[str, ...]:
    return tuple(parse_entry(word) for word in text.split(","))


class AuthFile(Plugin):
    """Verifies names and passwords."""

    @dataclass(frozen=True)
    class Settings:
        """From where, and how slowly failures are answered."""

        networks: tuple[str, ...] = option((), _networks)
        first_delay_ms: int = option(1000)
        last_delay_ms: int = option(8000)

    def __init__(self, name: str, settings: Any, context: Context) -> None:
        super().__init__(name, settings, context)
        self._networks = AddressList(settings.networks)
        self._file = PasswordFile(os.path.join(context.root, PASSWORD_FILE))
        self._waiting = 0

    def warnings(self) -> list[str]:
        """Say which lines of the file do not count, and who could read it."""
        try:
            faults = self._file.faults()
            if os.stat(self._file.path).st_mode & stat.S_IRWXO:
                faults.append(f"{self._file.path}: is open to everybody: chmod o= it")
            return faults
        except FileNotFoundError:
            return []  # nobody can log in yet
        except PasswordError as error:
            return [f"{error}: nobody can log in"]

    def offers_login_to(self, connection: Connection) -> bool:
        """Tell whether a client may log in from where it is."""
        return not self.settings.networks or self._networks.has(connection.remote)

    async def hook_auth(
        self, connection: Connection, credentials: Credentials
    ) -> Answer:
        """Verify what a client says; a failure is answered late."""
        if not self.offers_login_to(connection):
            self.log_skip(connection, "no login from here")
            return DECLINED
        loop = asyncio.get_running_loop()
        late = loop.time() + self._delay_seconds(connection)
        answer = await self._judge(connection, credentials)
        if answer is not OK:
            # However long it took to find out, all failures look the same.
            await asyncio.sleep(max(0.0, late - loop.time()))
        return answer

    def _delay_seconds(self, connection: Connection) -> float:
        # The session counts them; after a dozen it no longer matters how many.
        failures = min(getattr(connection, "auth_failures", 0), 12)
        settings = self.settings
        delay: int = min(settings.first_delay_ms << failures, settings.last_delay_ms)
        return delay / 1000

    async def _judge(self, connection: Connection, credentials: Credentials) -> Answer:
        user, password = credentials.user, credentials.password
        if (
            len(user.encode()) > MAX_NAME_BYTES
            or len(password.encode()) > MAX_PASSWORD_BYTES
        ):
            self.log(connection, NOTICE, "fail, name or password too long")
            return _WRONG
        if self._waiting >= MAX_WAITING:
            self.log_error(connection, "too many logins at once")
            return denysoft("Too many logins at once, try again later")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            is_right = await loop.run_in_executor(
                _threads, self._is_right, user, password
            )
        except PasswordError as error:
            self.log(connection, ERROR, f"error, {error}")
            return denysoft("Nobody can log in now, try again later")
        finally:
            self._waiting -= 1
        if is_right:
            self.log_pass(connection, f"user {user}")
            return OK
        self.log(connection, NOTICE, f"fail, user {user}")
        return DECLINED if is_right is None else _WRONG

    def _is_right(self, user: str, password: str) -> bool | None:
        """Verify a password, in a thread; None: the name is not known here.

        Raises PasswordError where the file cannot be read.
        """
        stored = self._file.find(user)
        matches = verify(password, stored or UNKNOWN)
        return None if stored is None else matches
