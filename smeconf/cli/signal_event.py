"""The command ``signal-event``."""

from __future__ import annotations

import sys

USAGE = 255

_USAGE = """\
usage: signal-event [--root DIR] EVENT [ARGUMENT]…

Expand the event's files, run its actions and adjust its services: all of it, or, with
exit status 1 and the reason on standard error, nothing.
"""


def main() -> None:
    """Run an event; end with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run one command line; return its exit status."""
    from smeconf.cli.options import take_root

    root, words = take_root(words)
    if words[:1] == ["--help"]:
        sys.stdout.write(_USAGE)
        return 0
    if not words or words[0].startswith("-"):
        sys.stderr.write(_USAGE)
        return USAGE
    return signal_event(words[0], words[1:], root)


def signal_event(name: str, arguments: list[str], root: str | None = None) -> int:
    """Run an event, its progress and faults on standard error; return the status."""
    from smeconf.events import EventError, Run, UnknownEvent, find_event
    from smeconf.paths import Paths
    from smeconf.system import System

    paths = Paths(root)
    try:
        event = find_event(name, paths)
        Run(event, arguments, paths, System(), _say).apply()
    except UnknownEvent as error:
        _complain(str(error))
        return USAGE
    except (EventError, OSError) as error:
        _complain(str(error))
        sys.stderr.write(f"signal-event {name}: failed, nothing was changed\n")
        return 1
    return 0


def _complain(text: str) -> None:
    for line in text.splitlines():
        sys.stderr.write(f"signal-event: {line}\n")


def _say(text: str) -> None:
    # What was expanded is progress, for people; the rest is worth a line in any log.
    if not text.startswith("expanded ") or sys.stderr.isatty():
        sys.stderr.write(text + "\n")
