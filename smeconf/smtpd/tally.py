"""Who is connected to which worker, and how often clients came: see ``admission``.

A client is the number of an IPv4 address or of a network of IPv6 (/64), of which a
single client may use every address.
"""

from __future__ import annotations

import secrets
import socket

from smeconf.smtpd.slots import COUNT, MASTER, Pieces
from smeconf.smtpd.table import Table

_PLACES = 16384  # in the table of one worker's clients
_RATE_PLACES = 8192  # in that of the clients that came to it within a minute
_IPV4 = 0xFFFF << 32
_LOWEST_NETWORK = 1 << 48  # stands for ::/64, since no key is 0


def client_number(remote: str) -> int:
    """Return the number of a client by its address, 0 for what is no address."""
    try:
        if ":" not in remote:
            return _IPV4 | int.from_bytes(socket.inet_aton(remote), "big")
        address = socket.inet_pton(socket.AF_INET6, remote.partition("%")[0])
    except (OSError, ValueError):
        return 0
    if address.startswith(b"\0\0\0\0\0\0\0\0\0\0\xff\xff"):
        return _IPV4 | int.from_bytes(address[12:], "big")
    return int.from_bytes(address[:8], "big") or _LOWEST_NETWORK


class _Minute:
    """How often clients came to one worker in one minute."""

    def __init__(self, memory: memoryview, factor: int) -> None:
        self._number = memory[16 * _RATE_PLACES :][:8].cast("Q")
        self.table = Table(memory, _RATE_PLACES, factor)

    @property
    def number(self) -> int:
        """Which minute it is, 0 for none."""
        return self._number[0]

    def turn_to(self, number: int) -> Table:
        """Return the table, empty where it was that of another minute."""
        if self._number[0] != number:
            self._number[0] = 0
            self.table.clear()
            self._number[0] = number
        return self.table


class Tally:
    """The tables of all workers.  The master makes it, and begins and ends slots; a
    worker writes to its own."""

    def __init__(self, count: int = COUNT) -> None:
        self.count = count
        # The slots to look at end here; then the connections of each.
        self._counts = Pieces(8 * (count + 1), 1).piece(0).cast("Q")
        self._counts[0] = 1
        self._clients = Pieces(16 * _PLACES, count)
        self._rates = tuple(Pieces(16 * _RATE_PLACES + 8, count) for _ in range(2))
        # Nobody who does not know it can choose addresses that collide.
        self._factor = secrets.randbits(64) | 1
        self._tables: list[Table] = []
        self._minutes: list[tuple[_Minute, ...]] = []
        self._in_use = {MASTER}

    def begin(self, slot: int) -> None:
        """Have a slot be looked at; the master calls this before its worker begins."""
        self._in_use.add(slot)
        self._counts[0] = max(self._in_use) + 1
        self._reach(self._counts[0])

    def end(self, slot: int) -> None:
        """Clear the slot of a worker that ended; how often clients came is kept."""
        for left, kept in zip(self._minutes[slot], self._minutes[MASTER], strict=True):
            if left.number and left.number >= kept.number:
                table = kept.turn_to(left.number)
                for client, number in left.table.items():
                    table.raise_by(client, number)
        self._counts[slot + 1] = 0
        for pieces in (self._clients, *self._rates):
            pieces.clear(slot)
        self._in_use.discard(slot)
        self._counts[0] = max(self._in_use) + 1
        # The views count how much room they have: the next worker needs new ones.
        self._tables[slot] = self._table(slot)
        self._minutes[slot] = self._both_minutes(slot)

    def connections(self, slot: int) -> int:
        """Return how many connections a worker has."""
        return self._counts[slot + 1]

    def total(self) -> int:
        """Return how many connections there are."""
        counts = self._counts
        return sum(counts[1 : counts[0] + 1])

    def of_client(self, client: int) -> int:
        """Return how many connections a client has."""
        counts = self._counts
        end = counts[0]
        if end > len(self._tables):  # workers that are younger than this one
            self._reach(end)
        tables = self._tables
        return sum(
            [tables[slot].find(client) for slot in range(1, end) if counts[slot + 1]]
        )

    def enter(self, slot: int, client: int) -> None:
        """Count a connection of a client (0: nobody knows whose) to a worker."""
        self._counts[slot + 1] += 1
        if client:
            self._tables[slot].raise_by(client)

    def leave(self, slot: int, client: int) -> None:
        """Take such a connection out."""
        self._counts[slot + 1] -= 1
        if client:
            self._tables[slot].lower(client)

    def come(self, slot: int, client: int, now: float) -> float:
        """Count that a client came; return how often it did within a minute.

        ``now`` is in seconds of a clock that all processes share.  What came in the
        minute before counts in part: as if it had been spread evenly.
        """
        minute, part = divmod(now, 60.0)
        number = int(minute) + 2  # neither this one nor the one before is 0
        self._minutes[slot][number & 1].turn_to(number).raise_by(client)
        end = self._counts[0]
        if end > len(self._tables):
            self._reach(end)
        times = 0.0
        for minutes in self._minutes[:end]:
            this, before = minutes[number & 1], minutes[~number & 1]
            if this.number == number:
                times += this.table.find(client)
            if before.number == number - 1:
                times += before.table.find(client) * (1 - part / 60.0)
        return times

    def _reach(self, end: int) -> None:
        """Have views of all slots below ``end``."""
        for slot in range(len(self._tables), end):
            self._tables.append(self._table(slot))
            self._minutes.append(self._both_minutes(slot))

    def _table(self, slot: int) -> Table:
        return Table(self._clients.piece(slot), _PLACES, self._factor)

    def _both_minutes(self, slot: int) -> tuple[_Minute, ...]:
        return tuple(_Minute(rates.piece(slot), self._factor) for rates in self._rates)
