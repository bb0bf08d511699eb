"""The command ``smeconf doctor``: what is not as it should be, and what mends it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from smeconf.paths import Paths, generation_file

# Who expands everything that mail needs.
_EVENT = "email-update"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or only worth knowing, and what to do about it."""

    is_fault: bool
    what: str
    remedy: str


@click.command()
@click.option("--repair", is_flag=True, help="Mend what an interrupted run has left.")
@click.option("--json", "as_json", is_flag=True, help="Print an object for scripts.")
@click.pass_obj
def doctor(paths: Paths, repair: bool, as_json: bool) -> None:
    """Say what is not as it should be: exit status 1, where something is wrong.

    An event that was killed is undone or finished by the next one; --repair does that
    now, and tells services what they are owed. Nothing else is touched.
    """
    if repair:
        from smeconf.cli.report import terminal_report
        from smeconf.events.repair import repair as put_back
        from smeconf.system import System

        for line in put_back(paths, System(), terminal_report()):
            click.echo(line, err=True)
    findings = list(_examine(paths))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = "wrong" if finding.is_fault else "note "
            click.echo(f"{mark}  {finding.what}: {finding.remedy}")
        if not findings:
            click.echo("all is well")
    sys.exit(int(any(finding.is_fault for finding in findings)))


def _examine(paths: Paths) -> Iterator[Finding]:
    yield from _interrupted(paths)
    yield from _edited(paths)
    yield from _not_applied(paths)
    yield from _filter(paths)


def _interrupted(paths: Paths) -> Iterator[Finding]:
    from smeconf.events.install import find_debts, is_cut_off
    from smeconf.events.journal import InstallError
    from smeconf.system import System

    try:
        is_interrupted = is_cut_off(paths, System())
    except InstallError as error:
        yield Finding(True, "a journal", str(error))
        return
    if is_interrupted:
        yield Finding(
            True,
            "an event was cut off in the middle of its install, or runs now",
            "smeconf doctor --repair waits for it, or puts its files back",
        )
    for _, services in find_debts(paths, System()):
        yield Finding(
            True,
            f"{', '.join(services)} may serve on files that were put back since",
            "smeconf doctor --repair",
        )


def _edited(paths: Paths) -> Iterator[Finding]:
    from smeconf.events.changes import Written
    from smeconf.system import System

    system = System()
    written = Written(paths, system)
    for target in written.targets():
        try:
            state = system.find(paths.under(target))
        except OSError as error:
            yield Finding(True, f"/{target}", str(error.strerror))
            continue
        if state is None:
            yield Finding(True, f"/{target} is gone", f"signal-event {_EVENT}")
        elif not written.is_ours(target, state.data):
            yield Finding(
                False,
                f"/{target} was edited by hand",
                "the next event keeps that as .edited; a fragment in "
                "etc/smeconf/templates-custom would stay",
            )


def _not_applied(paths: Paths) -> Iterator[Finding]:
    from smeconf.database import DatabaseError
    from smeconf.events import EventError, Report, Run, find_event
    from smeconf.services import ServiceError
    from smeconf.system import System

    try:
        run = Run(find_event(_EVENT, paths), [], paths, System(), Report())
        plan = run.plan()
    except (EventError, ServiceError, DatabaseError) as error:
        for line in str(error).splitlines():
            yield Finding(True, line, f"signal-event {_EVENT} would fail")
        return
    if plan.changes:
        count = len(plan.changes)
        yield Finding(
            False,
            f"{count} file{'s' * (count > 1)} would be changed by {_EVENT}",
            f"signal-event {_EVENT} --plan shows how",
        )


def _filter(paths: Paths) -> Iterator[Finding]:
    from smeconf.services import ServiceError, find_service

    start = "smeconf up, or your supervisor, starts it"
    try:
        status = find_service("qpsmtpd", paths).status()
    except ServiceError as error:
        yield Finding(True, str(error), start)
        return
    if not status.is_running:
        yield Finding(False, "qpsmtpd is not running", start)
    elif status.configuration != _installed(paths):
        yield Finding(
            True,
            "qpsmtpd serves another configuration than is installed",
            f"signal-event {_EVENT}",
        )


def _installed(paths: Paths) -> str:
    """Return the name of the configuration that is installed, empty for none."""
    path = generation_file(paths.service_config("qpsmtpd"))
    try:
        with open(path, encoding="utf-8") as file:
            return str(json.load(file)["id"])
    except (OSError, ValueError, KeyError):
        return ""
