"""Turns: what is compared runs in turns, and the median of the rounds counts."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from statistics import median


def in_turns(
    acts: Mapping[str, Callable[[], Iterable[float]]], count: int, seconds: float
) -> dict[str, tuple[float, ...]]:
    """Run each act ``count`` times, in turns; return the medians of its figures.

    When ``seconds`` have passed no further round is begun; one there always is.
    """
    figures: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    until = time.monotonic() + seconds
    for number in range(count):
        if number and time.monotonic() > until:
            break
        for name, act in acts.items():
            figures[name].append(tuple(act()))
    return {
        name: tuple(median(column) for column in zip(*rows, strict=True))
        for name, rows in figures.items()
    }
