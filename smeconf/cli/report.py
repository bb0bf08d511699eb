"""What a command that runs an event shows of it, on standard error.

Notices always; progress where somebody watches at a terminal: what is done now, and,
when it was done, the time that it took.
"""

from __future__ import annotations

import sys

from smeconf.events import Report


def terminal_report() -> Report:
    """Return who hears of a run of this command."""
    is_watched = sys.stderr is not None and sys.stderr.isatty()
    return _Progress() if is_watched else _Notices()


class _Notices(Report):
    def notice(self, text: str) -> None:
        _write(f"{text}\n")


class _Progress(Report):
    """Shows the step that is done now on a line that its result replaces."""

    _CLEAR = "\r\x1b[K"

    def notice(self, text: str) -> None:
        _write(f"{self._CLEAR}{text}\n")

    def changed(self, target: str) -> None:
        _write(f"{self._CLEAR}    /{target}\n")

    def begin(self, text: str) -> None:
        _write(f"{self._CLEAR}  {text} …")

    def done(self, text: str, seconds: float) -> None:
        _write(f"{self._CLEAR}  {text}  {seconds:.2f} s\n")


def _write(text: str) -> None:
    """Say it, if anybody listens: that nobody does must not undo an event."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, AttributeError, ValueError):
        pass
