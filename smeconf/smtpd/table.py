"""A table of numbers by key in memory that several processes share.

Open addressing with linear probing, of fixed size.  One process writes; others read
at any time without a lock.  What they read while an entry is being moved may be one
change behind, which is harmless for counting.
"""

from __future__ import annotations

from collections.abc import Iterator

_64_BITS = (1 << 64) - 1


class Table:
    """Numbers above 0 by keys of 64 bits other than 0; what is absent is 0.

    ``places`` is a power of two; a quarter of it always stays free, so that a search
    comes to an end.  ``memory`` holds ``16 * places`` bytes.  ``factor`` is odd, and
    secret where strangers choose the keys.
    """

    __slots__ = ("_factor", "_keys", "_mask", "_numbers", "_room", "_shift")

    def __init__(self, memory: memoryview, places: int, factor: int) -> None:
        self._keys = memory[: 8 * places].cast("Q")
        self._numbers = memory[8 * places : 16 * places].cast("Q")
        self._mask = places - 1
        self._shift = 65 - places.bit_length()
        self._factor = factor
        self._room = places * 3 // 4  # as the process that writes counts it

    def find(self, key: int) -> int:
        """Return the number of a key."""
        keys, mask = self._keys, self._mask
        place = (key * self._factor & _64_BITS) >> self._shift
        while (found := keys[place]) != key:
            if not found:
                return 0
            place = (place + 1) & mask
        return self._numbers[place]

    def raise_by(self, key: int, number: int = 1) -> int:
        """Add to the number of a key; return the sum, 0 where the table is full."""
        place = self._place(key)
        if not self._keys[place]:
            if not self._room:
                return 0
            self._room -= 1
            self._numbers[place] = number
            self._keys[place] = key  # last: now readers can see it
            return number
        self._numbers[place] += number
        return self._numbers[place]

    def lower(self, key: int) -> None:
        """Take 1 from the number of a key; at 0 it leaves the table."""
        place = self._place(key)
        if not self._keys[place]:
            return  # it had no room
        self._numbers[place] -= 1
        if not self._numbers[place]:
            self._room += 1
            self._close_gap(place)

    def items(self) -> Iterator[tuple[int, int]]:
        """Return every key with its number."""
        pairs = zip(self._keys.tolist(), self._numbers.tolist(), strict=True)
        return ((key, number) for key, number in pairs if key)

    def clear(self) -> None:
        """Take everything out."""
        self._keys[:] = memoryview(bytes(self._keys.nbytes)).cast("Q")
        self._room = len(self._keys) * 3 // 4

    def _home(self, key: int) -> int:
        return (key * self._factor & _64_BITS) >> self._shift

    def _place(self, key: int) -> int:
        """Return where a key is, or the free place where it would be."""
        keys, mask = self._keys, self._mask
        place = (key * self._factor & _64_BITS) >> self._shift
        while (found := keys[place]) != key and found:
            place = (place + 1) & mask
        return place

    def _close_gap(self, gap: int) -> None:
        """Free a place, and move those behind it up that would not be found else."""
        keys, mask = self._keys, self._mask
        place = gap
        while key := keys[place := (place + 1) & mask]:
            # Whether its home lies cyclically behind the gap: then it stays.
            if (place - self._home(key)) & mask < (place - gap) & mask:
                continue
            self._numbers[gap] = self._numbers[place]
            keys[gap] = key
            gap = place
        keys[gap] = 0
