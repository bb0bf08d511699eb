"""Files written outside of any event, as safely as within one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from smeconf.events.changes import Change
from smeconf.events.check import checks_of, run_check
from smeconf.events.install import Install, recover
from smeconf.events.journal import InstallError
from smeconf.events.log import EventLog, Report
from smeconf.events.turns import Turn, TurnError
from smeconf.paths import Paths
from smeconf.system import System
from smeconf.templates import Layers


def write_files(
    expand: Callable[[], Sequence[Change]],
    command: str,
    layers: Layers,
    paths: Paths,
    system: System,
    environment: Mapping[str, str],
    report: Report,
) -> None:
    """Have files expanded and checked, and install them: all or none.

    ``command`` is who asks.  Waits for an event that runs, unless it is that one's own
    action; ``expand`` is called when that is over.  Raises InstallError, CheckError,
    TargetError, and what ``expand`` raises; nothing is written then.
    """
    log = EventLog(command, [], paths, report)
    try:
        with Turn(command, [], paths, system, log.notice) as turn:
            if turn.depth == 0:
                recover(paths, system, log.notice)
            changes = expand()
            if not changes:
                return
            for check in checks_of(changes, layers):
                run_check(check, changes, paths, system, environment, paths.state)
            install = Install.of(
                changes, paths, system, command, services={}, depth=turn.depth
            )
            try:
                install.put_in_place(changes)
                install.commit()
            except BaseException as error:
                _put_back(install, error)
                raise
            for target, name in install.kept:
                log.notice(f"/{target} was edited by hand: kept beside, as {name}")
    except TurnError as error:
        raise InstallError(str(error)) from error
    except OSError as error:
        raise InstallError(f"{error.filename}: {error.strerror}") from error


def _put_back(install: Install, error: BaseException) -> None:
    """Undo; where that fails, too, say both, the reason first."""
    try:
        install.undo()
    except InstallError as left:
        raise InstallError(f"{error}\n{left}") from error
