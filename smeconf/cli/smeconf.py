"""The command ``smeconf``: set up, run, look into."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from smeconf.cli.completion_command import completion
from smeconf.cli.doctor import doctor
from smeconf.cli.explain import explain
from smeconf.cli.options import settle_process
from smeconf.cli.status import status
from smeconf.cli.unit import unit
from smeconf.cli.user import user
from smeconf.database import Document
from smeconf.paths import Paths

if TYPE_CHECKING:
    from smeconf.system import System

_DEMO = {
    "BindAddress": "127.0.0.1",
    "TCPPort": "2525",
    "QueueMethod": "maildir",
    "QueueTarget": "Maildir",
}


@click.group()
@click.option("--root", metavar="DIR", help="Where all places lie; else SMECONF_ROOT.")
@click.pass_context
def main(context: click.Context, root: str | None) -> None:
    """Run a mail filter that is steered by a database, templates and events."""
    settle_process()
    context.obj = Paths(root)


for command in (completion, doctor, explain, unit, user, status):
    main.add_command(command)


@main.command()
@click.option("--databases", is_flag=True, help="The databases only.")
@click.pass_obj
def init(paths: Paths, databases: bool) -> None:
    """Bring the databases up to date, and make the generated files."""
    if databases:
        from smeconf.database.migrate import initialize_all

        is_well = initialize_all(paths, click.echo, _complain)
    else:
        is_well = _initialize(paths)
    if not is_well:
        sys.exit(1)


@main.command()
@click.option(
    "--demo",
    is_flag=True,
    help="A new root becomes one to try out: 127.0.0.1:2525, local.test, a Maildir.",
)
@click.pass_obj
def up(paths: Paths, demo: bool) -> None:
    """Bring the generated files up to date and run the filter in the foreground."""
    if demo:
        _make_demo(paths)
    _initialize(paths)
    record = _configuration(paths).find("qpsmtpd")
    if record is not None and record.properties.get("status") == "disabled":
        raise click.ClickException(
            "qpsmtpd is disabled: config setprop qpsmtpd status enabled"
        )
    if demo:
        _show_demo(paths)
    os.environ["SMECONF_ROOT"] = paths.root
    sys.stdout.flush()
    daemon = os.path.join(os.path.dirname(sys.executable), "smeconf-smtpd")
    os.execv(daemon, [daemon, "--config", paths.service_config("qpsmtpd")])


def _initialize(paths: Paths) -> bool:
    """Bring the databases up to date, then do what email-update does but for services.

    Returns whether all went well.  A database that could not be brought up to date
    is left as it was, and the files are made of that: mail goes on.
    """
    from smeconf.database import DatabaseError
    from smeconf.database.migrate import initialize_all
    from smeconf.events import EventError, Report, Run, find_event
    from smeconf.services import ServiceError
    from smeconf.system import System

    is_well = initialize_all(paths, click.echo, _complain)
    try:
        event = find_event("email-update", paths)
        run = Run(event, [], paths, System(), Report())
        run.apply(with_services=False)
        _make_certificate(paths, System())
    except (DatabaseError, EventError, ServiceError, ValueError) as error:
        for line in str(error).splitlines():
            _complain(line)
        sys.exit(1)
    return is_well


def _make_certificate(paths: Paths, system: System) -> None:
    """Have the filter able to offer encryption from its first day on."""
    from smeconf.certificate import make_certificate

    path = os.path.join(paths.service_config("qpsmtpd"), "me")
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file if not line.startswith("#")]
        # As the filter reads it: the first line that says something.
        name = next(filter(None, lines), "localhost")
        made = make_certificate(paths, name, system)
    except OSError as error:
        _complain(f"{error.filename}: no certificate was made: {error.strerror}")
    else:
        if made:
            click.echo(f"made a self-signed certificate for {name}: {made}")


def _complain(line: str) -> None:
    click.echo(f"smeconf: {line}", err=True)


def _make_demo(paths: Paths) -> None:
    """Fill a root that has no configuration yet."""
    from smeconf.database import Database, Record

    if os.path.exists(paths.database("configuration")):
        return
    with Database.open("configuration", paths).transaction() as records:
        records.put("SystemName", Record("mail"))
        records.put("DomainName", Record("local.test"))
        records.put("qpsmtpd", Record("service", _DEMO))
    with Database.open("domains", paths).transaction() as records:
        records.put("local.test", Record("domain"))


def _show_demo(paths: Paths) -> None:
    properties = _configuration(paths).find("qpsmtpd")
    port = properties.properties["TCPPort"] if properties else ""
    commands = os.path.dirname(sys.executable)
    click.echo(
        f"For a second terminal:\n\n"
        f"    export SMECONF_ROOT={paths.root}\n"
        f'    export PATH={commands}:"$PATH"\n\n'
        f"and, to send a message as a stranger that block lists know (127.0.0.2):\n\n"
        f"    swaks --server 127.0.0.1:{port} --local-interface 127.0.0.2 "
        f"--from someone@example.org --to user@local.test\n"
    )


def _configuration(paths: Paths) -> Document:
    from smeconf.database import Database

    return Database.open("configuration", paths).read()
