"""What a run that was killed has left, finished or undone without another event."""

from __future__ import annotations

from smeconf.events.adjust import Adjuster
from smeconf.events.install import recover
from smeconf.events.journal import InstallError
from smeconf.events.log import EventLog, Report
from smeconf.events.turns import Turn, TurnError
from smeconf.paths import Paths
from smeconf.system import System
from smeconf.templates import Snapshot


def repair(paths: Paths, system: System, report: Report) -> list[str]:
    """Put back what was cut off, and tell the services that are owed it.

    An event that runs is waited for.  Returns, in lines, what could not be done.
    """
    log = EventLog("doctor", [], paths, report)
    try:
        with Turn("doctor", [], paths, system, log.notice):
            recover(paths, system, log.notice)
            return Adjuster(paths, system, Snapshot(paths), log).pay_debts()
    except (InstallError, TurnError) as error:
        return str(error).splitlines()
