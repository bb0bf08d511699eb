"""What the master tells of the filter: how it is, what it did, and how fast."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from smeconf.smtpd import stats as names
from smeconf.smtpd.stats import Stats
from smeconf.smtpd.workforce import Worker, Workforce

TICK_SECONDS = 10.0
_MINUTES = (1, 5, 15)
_RATES = (names.CONNECTIONS, names.MESSAGES)


class Rates:
    """How much of a counter came within the last 1, 5 and 15 minutes."""

    def __init__(self, stats: Stats, clock: Callable[[], float]) -> None:
        self._stats = stats
        self._clock = clock
        longest = round(max(_MINUTES) * 60 / TICK_SECONDS)
        self._past: deque[tuple[float, tuple[int, ...]]] = deque(maxlen=longest + 2)
        self.tick()

    def tick(self) -> None:
        """Take a sample; called every TICK_SECONDS."""
        self._past.append((self._clock(), self._now()))

    def a_minute(self) -> dict[str, dict[str, float]]:
        """Return how many a minute, by counter and number of minutes.

        Where the filter is younger, it is over the time that it runs.
        """
        now, totals = self._clock(), self._now()
        rates: dict[str, dict[str, float]] = {name: {} for name in _RATES}
        for minutes in _MINUTES:
            began = now - minutes * 60
            # The youngest sample that is old enough.
            then, before = self._past[0]
            for sample in self._past:
                if sample[0] > began:
                    break
                then, before = sample
            spent = max(now - then, 1.0) / 60
            for name, total, old in zip(_RATES, totals, before, strict=True):
                rates[name][str(minutes)] = round((total - old) / spent, 2)
        return rates

    def _now(self) -> tuple[int, ...]:
        return tuple(self._stats.total(name) for name in _RATES)


@dataclass(frozen=True, slots=True)
class WorkerVitals:
    """How a worker is; ``memory_bytes`` is its share of memory (PSS) where that may be
    known, else what it has in memory (RSS), which counts shared pages in full."""

    pid: int
    generation: int
    sessions: int
    memory_bytes: int
    memory_kind: str
    messages: int

    @classmethod
    def of(cls, one: Worker, force: Workforce) -> WorkerVitals:
        """Look at a worker."""
        memory, kind = memory_of(one.pid)
        return cls(
            one.pid,
            one.generation,
            force.tally.connections(one.slot),
            memory,
            kind,
            force.stats.worker_total(one.slot, names.MESSAGES),
        )


class Vitals:
    """All of it."""

    def __init__(
        self, force: Workforce, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._force = force
        self._clock = clock
        self._began = clock()
        self.rates = Rates(force.stats, clock)

    @property
    def up_seconds(self) -> float:
        """How long the master runs."""
        return self._clock() - self._began

    @property
    def sessions(self) -> int:
        """How many clients are connected."""
        return self._force.tally.total()

    def workers(self) -> list[WorkerVitals]:
        """Return how each worker is."""
        return [WorkerVitals.of(one, self._force) for one in self._force]

    def answer(self) -> dict[str, Any]:
        """Return all of it in words for JSON."""
        counts = self._force.stats.totals()
        memory, kind = memory_of(os.getpid())
        since = time.time() - self.up_seconds
        return {
            "since": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(since)),
            "up_seconds": round(self.up_seconds, 1),
            "sessions": self.sessions,
            "memory_bytes": memory,
            "memory_kind": kind,
            "workers": [_fields(one) for one in self.workers()],
            "counts": counts,
            "rates_a_minute": self.rates.a_minute(),
            "verdicts": [
                {**_fields(one), "seconds": round(one.seconds, 6)}
                for one in self._force.stats.verdicts()
            ],
        }


def _fields(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}


def memory_of(pid: int) -> tuple[int, str]:
    """Return the memory of a process in bytes, and what that is: PSS or RSS.

    (0, "") for a process that is gone.
    """
    try:
        # Not of a process that gave up root, by another than root.
        kilobytes = _field(f"/proc/{pid}/smaps_rollup", "Pss:")
        return kilobytes * 1024, "PSS"
    except (OSError, ValueError):
        pass
    try:
        return _field(f"/proc/{pid}/status", "VmRSS:") * 1024, "RSS"
    except (OSError, ValueError):
        return 0, ""


def _field(path: str, name: str) -> int:
    with open(path, encoding="ascii") as lines:
        return _first(line.split()[1] for line in lines if line.startswith(name))


def _first(found: Iterable[str]) -> int:
    for text in found:
        return int(text)
    raise ValueError("it is not there")
