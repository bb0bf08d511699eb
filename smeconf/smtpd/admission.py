"""How many clients are served at once, in all and from one address, and how often one
may come: counted over all workers, those of old configurations among them.

Each worker keeps count of its own clients in memory that all can read (``tally``).  To
let a client in it enters it first, and then adds up what all workers have entered;
over the limit, it takes the entry back and refuses.  So a limit is never exceeded,
though no process waits for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from smeconf.smtpd.config import Directory, whole_number
from smeconf.smtpd.log import WARNING, Log
from smeconf.smtpd.replies import reply
from smeconf.smtpd.tally import Tally, client_number

DEFAULT_INSTANCES = 1200
DEFAULT_INSTANCES_PER_IP = 50

TOO_MANY = reply(421, "4.3.2", "Too many connections, try again later")
TOO_MANY_OF_CLIENT = reply(421, "4.7.0", "Too many connections from your address")

# Two workers that enter a client each at the same moment may both find that there was
# room for one: they look again.
_TRIES = 4
_SAY_SECONDS = 60.0
# Of a flood from everywhere only so many addresses are named in a minute.
_MAX_NAMED = 100


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How many connections are served at once, how many of one client, and how many
    one client may make in a minute; 0 is no limit."""

    instances: int = DEFAULT_INSTANCES
    instances_per_ip: int = DEFAULT_INSTANCES_PER_IP
    rate: int = 0

    @classmethod
    def read(cls, directory: Directory) -> AdmissionLimits:
        """Read ``instances``, ``instances_per_ip`` and ``connection_rate``.

        Raises ConfigError naming the line.
        """
        return cls(
            directory.first("instances", whole_number, DEFAULT_INSTANCES),
            directory.first("instances_per_ip", whole_number, DEFAULT_INSTANCES_PER_IP),
            directory.first("connection_rate", whole_number, 0),
        )


class Admission:
    """The door of one worker.

    ``slot`` is that worker's in ``tally``.  ``is_relay_client`` tells of an address
    whether only the limit of all connections is for it.
    """

    def __init__(
        self,
        tally: Tally,
        slot: int,
        limits: AdmissionLimits,
        is_relay_client: Callable[[str], bool],
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tally = tally
        self._slot = slot
        self._limits = limits
        self._is_relay_client = is_relay_client
        self._clock = clock
        self._refusals = _Refusals(log)

    def admit(self, remote: str) -> bytes | None:
        """Let a client in; return the reply that refuses it, None where it is in.

        One that is in must be taken out again, with ``released``.
        """
        client = client_number(remote)
        refusal = self._refuse_rate(remote, client)
        tries = _TRIES
        while refusal is None and tries:
            refusal = self._enter(remote, client)
            if refusal is None:
                return None
            tries -= 1
            if tries and self._has_room(refusal, client):
                refusal = None
        assert refusal is not None
        text = refusal[4:-2].decode()
        self._refusals.note(remote, text, self._clock())
        return refusal

    def released(self, remote: str) -> None:
        """Take note that a client that was let in is gone."""
        self._tally.leave(self._slot, client_number(remote))

    def tick(self) -> None:
        """Say what became of refusals whose minute is over; called now and then."""
        self._refusals.tick(self._clock())

    def _enter(self, remote: str, client: int) -> bytes | None:
        """Enter a client; where that is one too many, take it out again."""
        tally, limits = self._tally, self._limits
        tally.enter(self._slot, client)
        limit = limits.instances_per_ip
        if (
            limit
            and client
            and tally.of_client(client) > limit
            and not self._is_relay_client(remote)
        ):
            refusal = TOO_MANY_OF_CLIENT
        elif limits.instances and tally.total() > limits.instances:
            refusal = TOO_MANY
        else:
            return None
        tally.leave(self._slot, client)
        return refusal

    def _has_room(self, refusal: bytes, client: int) -> bool:
        """Tell whether there would be room after all, now that we are out again."""
        if refusal is TOO_MANY:
            return self._tally.total() < self._limits.instances
        return self._tally.of_client(client) < self._limits.instances_per_ip

    def _refuse_rate(self, remote: str, client: int) -> bytes | None:
        rate = self._limits.rate
        if not rate or not client:
            return None
        # Attempts count too that are refused: who goes on like that stays out.
        if self._tally.come(self._slot, client, self._clock()) <= rate:
            return None
        return None if self._is_relay_client(remote) else TOO_MANY_OF_CLIENT


class _Refusals:
    """Says once a minute of an address that it is refused, and how often it was."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._counts: dict[str, int] = {}
        self._until = 0.0

    def note(self, remote: str, text: str, now: float) -> None:
        """Note a refusal of ``remote`` with ``text``."""
        self.tick(now)
        if not self._counts:
            self._until = now + _SAY_SECONDS
        count = self._counts.get(remote, 0)
        if not count and len(self._counts) >= _MAX_NAMED:
            remote = ""
            count = self._counts.get(remote, 0)
        self._counts[remote] = count + 1
        if not count:
            self._say(f"{remote or 'other addresses'} refused: {text}")

    def tick(self, now: float) -> None:
        """Sum up a minute that is over."""
        if not self._counts or now < self._until:
            return
        for remote, count in self._counts.items():
            if count > 1:
                who = remote or "other addresses"
                self._say(f"{who} refused {count} times within a minute")
        self._counts.clear()

    def _say(self, text: str) -> None:
        self._log.server(WARNING, f"connection limit: {text}")
