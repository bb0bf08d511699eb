"""What was measured, as rows of one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_HEADINGS = ("what", "peer", "ours", "ratio", "goal", "reached?")


@dataclass(frozen=True)
class Goal:
    """What a row should reach: ``text`` for people, and whether it did."""

    text: str
    reached: bool


@dataclass(frozen=True)
class Row:
    """One figure of ours beside one of a peer's, both in the same ``unit``.

    ``peer`` is its name, empty where there is none to compare with.
    """

    what: str
    ours: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """Ours, as a multiple of the peer's."""
        return self.ours / self.peer_value if self.peer_value else None

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        peer = self.peer
        if self.peer_value is not None:
            peer = f"{peer} {_figure(self.peer_value, self.unit)}"
        return (
            self.what,
            peer,
            _figure(self.ours, self.unit),
            "" if self.ratio is None else _ratio(self.ratio),
            self.goal.text if self.goal else "",
            {True: "yes", False: "NO"}[self.goal.reached] if self.goal else "",
        )


def at_most(limit: float, value: float, unit: str) -> Goal:
    """Return the goal that ``value`` is at most ``limit``."""
    return Goal(f"at most {limit:g} {unit}", value <= limit)


def show(rows: Sequence[Row]) -> str:
    """Return the table as text."""
    lines = [_HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    text.insert(1, "-|-".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in text)


def _figure(value: float, unit: str) -> str:
    if value == int(value):
        return f"{value:.0f} {unit}"
    return f"{value:#.3g} {unit}".replace(". ", " ")


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f} x" if ratio >= 1 or not ratio else f"{1 / ratio:.2f} x less"
