"""Counters and timings of all processes, since the master began.

Each process counts in memory of its own slot that the master can read; what workers
that ended had counted is kept.  Names are numbered by the master before it starts
workers, and keep their number over reloads, so that counts go on.

    stats.count("connections")
    meter = stats.meter("dnsbl", "connect")     # once, at load
    meter.add(answer.verdict, seconds)          # each time
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smeconf.smtpd.hooks import HOOKS, Verdict
from smeconf.smtpd.slots import COUNT, MASTER, Pieces

if TYPE_CHECKING:
    from smeconf.smtpd.plugin import Plugin

# Of the server itself; those of refused messages and connections by hook.
CONNECTIONS = "connections"
CONNECTIONS_REFUSED = "connections_refused"
MESSAGES = "messages"
MESSAGE_BYTES = "message_bytes"
REFUSED = "refused_"  # and the hook
REPLIES = "replies_"  # and the first digit

_REFUSING_HOOKS = (
    *("connect", "helo", "ehlo", "auth", "mail", "rcpt", "data", "data_post", "queue"),
    *("vrfy", "noop", "unrecognized_command", "core"),
)
NAMES = (
    *(CONNECTIONS, CONNECTIONS_REFUSED, MESSAGES, MESSAGE_BYTES),
    *(REFUSED + hook for hook in _REFUSING_HOOKS),
    *(f"{REPLIES}{digit}" for digit in "2345"),  # one behind the other
)
_DIGITS = (b"2", b"3", b"4", b"5")

_VERDICTS = tuple(Verdict)
_DECLINED = _VERDICTS.index(Verdict.DECLINED)
# Behind the verdicts: the plugin failed.
_FAILED = len(_VERDICTS)
FAILED = "error"
_KINDS = _FAILED + 1
_OFFSETS = {verdict: offset for offset, verdict in enumerate(_VERDICTS)}

_CELLS = 8192  # numbers a process can hold: some 450 pairs of plugin and hook


class Meter:
    """The verdicts of one plugin at one hook: how many, and the time they took."""

    __slots__ = ("_base", "_cells")

    def __init__(self, cells: memoryview[float], base: int) -> None:
        self._cells = cells
        self._base = base

    def add(self, verdict: Verdict | None, seconds: float) -> None:
        """Count a verdict that took ``seconds``; None: the plugin failed."""
        cells, cell = self._cells, self._base
        if verdict is Verdict.DECLINED:  # nearly always
            cell += _DECLINED
        else:
            cell += _FAILED if verdict is None else _OFFSETS[verdict]
        cells[cell] += 1.0
        cells[cell + _KINDS] += seconds


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How often a plugin gave a verdict at a hook, and how long it took in all."""

    plugin: str
    hook: str
    verdict: str
    times: int
    seconds: float


class Stats:
    """The counters: made by the master, which alone may add names."""

    def __init__(self, count: int = COUNT) -> None:
        self._pieces = Pieces(8 * _CELLS, count)
        self._numbers: dict[str, int] = {}
        self._bases: dict[tuple[str, str], int] = {}
        self._next = 0
        self._in_use = {MASTER}
        self._cells = self._of(MASTER)
        for name in NAMES:
            self._numbers[name] = self._take(1)
        self._replies = self._numbers[f"{REPLIES}2"] - ord("2")

    def meter(self, plugin: str, hook: str) -> Meter:
        """Return what counts a plugin's verdicts at a hook, in this process.

        One that is new is numbered, which works in the master alone.  Where there is
        no room for more, all that are new count as one without a name.
        """
        base = self._bases.get((plugin, hook))
        if base is None:
            if self._next + 4 * _KINDS > _CELLS:
                plugin = hook = ""
            base = self._bases.get((plugin, hook))
            if base is None:
                base = self._bases[plugin, hook] = self._take(2 * _KINDS)
        return Meter(self._cells, base)

    def register(self, plugins: Iterable[Plugin]) -> None:
        """Number the names of all hooks of these plugins; the master calls this."""
        for plugin in plugins:
            for hook in HOOKS:
                if hasattr(plugin, "hook_" + hook):
                    self.meter(plugin.name, hook)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter.  Raises KeyError for a name that is not in NAMES."""
        self._cells[self._numbers[name]] += number

    def count_reply(self, reply: bytes) -> None:
        """Count a reply by its first digit."""
        if reply[:1] in _DIGITS:
            self._cells[self._replies + reply[0]] += 1.0

    def plugin(
        self, plugin: str, hook: str, verdict: Verdict | None, seconds: float
    ) -> None:
        """Count a verdict, as ``Meter.add``, where no meter is at hand."""
        self.meter(plugin, hook).add(verdict, seconds)

    def begin(self, slot: int) -> None:
        """Have a slot be counted in; the master calls this before its worker begins."""
        self._in_use.add(slot)

    def serve_as(self, slot: int) -> None:
        """Count in a slot from now on; a worker calls this, before it takes meters."""
        self._cells = self._of(slot)

    def end(self, slot: int) -> None:
        """Keep what a worker had counted that ended, and clear its slot."""
        kept = self._of(MASTER)
        for cell, number in enumerate(self._of(slot)[: self._next]):
            if number:
                kept[cell] += number
        self._pieces.clear(slot)
        self._in_use.discard(slot)

    def total(self, name: str) -> int:
        """Return a counter's sum over all processes.  Raises KeyError."""
        return round(self._sum(self._numbers[name]))

    def totals(self) -> dict[str, int]:
        """Return every counter's sum, by its name."""
        return {name: self.total(name) for name in NAMES}

    def worker_total(self, slot: int, name: str) -> int:
        """Return what the process of a slot has counted.  Raises KeyError."""
        return round(self._of(slot)[self._numbers[name]])

    def verdicts(self) -> Iterator[Verdicts]:
        """Return what every plugin said so far, at every hook, by name."""
        labels = [verdict.name for verdict in _VERDICTS] + [FAILED]
        sums = self._sums()
        for (plugin, hook), base in sorted(self._bases.items()):
            for offset, label in enumerate(labels):
                times, seconds = sums[base + offset], sums[base + offset + _KINDS]
                if times:
                    yield Verdicts(plugin, hook, label, round(times), seconds)

    def _sum(self, cell: int) -> float:
        return sum([self._of(slot)[cell] for slot in self._in_use])

    def _sums(self) -> list[float]:
        columns = [self._of(slot)[: self._next].tolist() for slot in self._in_use]
        return [sum(column) for column in zip(*columns, strict=True)]

    def _take(self, count: int) -> int:
        first = self._next
        self._next += count
        return first

    def _of(self, slot: int) -> memoryview[float]:
        return self._pieces.piece(slot).cast("d")
