"""The command ``signal-event``."""

from __future__ import annotations

import sys

from smeconf.cli.options import end_process, settle_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from smeconf.events import Report, Run

CHANGES = 2
USAGE = 255

_USAGE = """\
usage: signal-event [--root DIR] EVENT [ARGUMENT]… [--plan [--json]]

Expand the event's files, run its actions and adjust its services: all of it, or, with
exit status 1 and the reason on standard error, nothing.

--plan shows what would change and touches nothing; exit status 0: nothing, 2: changes.

An action of the event (events/EVENT/Snn…) is called with EVENT and the arguments; it
has EVENT and SMECONF_ROOT in its environment, and a PATH that finds smeconf's commands.
"""


def main() -> None:
    """Run an event; end with its exit status."""
    import gc

    settle_process()
    gc.disable()  # hardly anything is thrown away before the end
    end_process(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run one command line; return its exit status."""
    from smeconf.cli.options import take_root

    root, words = take_root(words)
    if words[:1] == ["--help"]:
        sys.stdout.write(_USAGE)
        return 0
    options = {word for word in words if word in ("--plan", "--json")}
    words = [word for word in words if word not in options]
    if not words or words[0].startswith("-") or options == {"--json"}:
        sys.stderr.write(_USAGE)
        return USAGE
    if options:
        return show_plan(words[0], words[1:], root, as_json="--json" in options)
    return signal_event(words[0], words[1:], root)


def signal_event(name: str, arguments: list[str], root: str | None = None) -> int:
    """Run an event, its progress and faults on standard error; return the status."""
    import signal

    # What was begun is ended, whoever loses his terminal; or undone, when told to stop.
    # A handler, not SIG_IGN, which actions would inherit.
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.signal(signal.SIGTERM, _interrupt)
    return _attempt(name, arguments, root, _apply)


def show_plan(
    name: str, arguments: list[str], root: str | None = None, *, as_json: bool = False
) -> int:
    """Print what an event would do; return 2 where there is something, else 0."""

    def plan(run: Run) -> int:
        found = run.plan()
        sys.stdout.write(found.as_json() if as_json else found.as_text())
        return CHANGES if found.changes else 0

    return _attempt(name, arguments, root, plan)


def _apply(run: Run) -> int:
    run.apply()
    return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _attempt(
    name: str, arguments: list[str], root: str | None, act: Callable[[Run], int]
) -> int:
    from smeconf.cli.report import terminal_report
    from smeconf.database import DatabaseError
    from smeconf.events import EventError, Run, UnknownEvent, find_event
    from smeconf.paths import Paths
    from smeconf.services import ServiceError
    from smeconf.system import System

    paths = Paths(root)
    report: Report = terminal_report()
    try:
        event = find_event(name, paths)
        return act(Run(event, arguments, paths, System(), report))
    except UnknownEvent as error:
        _complain(str(error))
        return USAGE
    except (EventError, ServiceError, DatabaseError, OSError) as error:
        _complain(str(error))
        if act is _apply:
            is_whole = not getattr(error, "left", ())
            end = "nothing was changed" if is_whole else "not all could be put back"
            _say(f"signal-event {name}: failed, {end}")
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")  # before anything was begun
        return 1


def _complain(text: str) -> None:
    for line in text.splitlines():
        _say(f"signal-event: {line}")


def _say(line: str) -> None:
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (OSError, AttributeError):
        pass  # nobody listens
