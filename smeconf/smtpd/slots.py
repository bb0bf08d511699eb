"""Memory that master and workers share, in equal pieces: one a process.

It is anonymous and made before any worker, so it has no file and ends with the last of
its processes.  Only the process that has a slot writes to its piece, so nothing needs
a lock, and whatever becomes of that process (kill -9 too), the master can clear what
it left.  Slot 0 is the master's own.

Memory that was never written to costs nothing but addresses.
"""

from __future__ import annotations

import heapq
import mmap

MASTER = 0
# Workers of old generations keep theirs until their last session ends.
COUNT = 512
_MAP_NORESERVE = 0x4000  # on Linux; Python 3.11 does not name it


class NoSlotLeft(Exception):
    """Too many processes at once; says so in one line."""


class Slots:
    """The numbers of the pieces, which the master gives out."""

    def __init__(self, count: int = COUNT) -> None:
        self.count = count
        self._free = list(range(1, count))

    def take(self) -> int:
        """Return the lowest number that is free.  Raises NoSlotLeft."""
        if not self._free:
            raise NoSlotLeft(
                f"{self.count - 1} workers are there, most of them with the last "
                f"sessions of old configurations: try again when these have ended"
            )
        return heapq.heappop(self._free)

    def give_back(self, slot: int) -> None:
        """Have a number, whose pieces were cleared, given out again."""
        heapq.heappush(self._free, slot)


class Pieces:
    """A piece of ``size`` bytes for each of ``count`` slots, all of them zero."""

    def __init__(self, size: int, count: int) -> None:
        self._size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._memory = mmap.mmap(-1, self._size * count, flags=flags)
        self._view = memoryview(self._memory)

    def piece(self, slot: int) -> memoryview:
        """Return the bytes of a slot."""
        return self._view[slot * self._size : (slot + 1) * self._size]

    def clear(self, slot: int) -> None:
        """Make the piece of a slot zero, and give its memory back."""
        try:
            self._memory.madvise(mmap.MADV_REMOVE, slot * self._size, self._size)
        except OSError:  # not every kernel can
            self.piece(slot)[:] = bytes(self._size)
