"""What a command that runs an event shows of it, on standard error.

Notices always; progress where somebody watches at a terminal: what is done now, and,
when it was done, the time that it took.
"""

from __future__ import annotations

import sys

from smeconf.events import Report


def terminal_report() -> Report:
    """Return who hears of a run of this command."""
    return _Progress() if sys.stderr.isatty() else _Notices()


class _Notices(Report):
    def notice(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class _Progress(Report):
    """Shows the step that is done now on a line that its result replaces."""

    _CLEAR = "\r\x1b[K"

    def notice(self, text: str) -> None:
        self._write(f"{text}\n")

    def begin(self, text: str) -> None:
        self._write(f"  {text} …")

    def done(self, text: str, seconds: float) -> None:
        self._write(f"  {text}  {seconds:.2f} s\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"{self._CLEAR}{text}")
        sys.stderr.flush()
