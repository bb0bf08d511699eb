"""The command ``smeconf-smtpd``: the filter in the foreground, and its own check."""

from __future__ import annotations

import sys

import click

from smeconf.paths import Paths


@click.command()
@click.option(
    "--config",
    "directory",
    metavar="DIR",
    help="The configuration directory. Default: var/service/qpsmtpd/config.",
)
@click.option(
    "--check",
    metavar="DIR",
    help="Load DIR, say what is wrong with it (file:line: why), and end.",
)
@click.option(
    "--prepare",
    metavar="DIR",
    help="Make the directories that the filter of DIR writes to, and end.",
)
@click.option("--reload", is_flag=True, help="Have the filter that runs load anew.")
@click.option("--root", metavar="DIR", help="Where all places lie; else SMECONF_ROOT.")
def main(
    directory: str | None,
    check: str | None,
    prepare: str | None,
    reload: bool,
    root: str | None,
) -> None:
    """Run the mail filter in the foreground.

    SIGHUP loads the configuration anew, SIGTERM and SIGINT end the filter. --reload
    does that to the one that runs, and says whether it serves: exit status 1, if not.
    """
    paths = Paths(root)
    if reload:
        _reload(paths)
        return
    if check is not None or prepare is not None:
        sys.exit(_load(check or prepare or "", paths, prepare is not None))
    from smeconf.smtpd import master

    sys.exit(master.main(directory or paths.service_config("qpsmtpd"), paths))


def _reload(paths: Paths) -> None:
    """Have the filter that runs read its directory; end with 1 where it does not."""
    from smeconf.services import ServiceError
    from smeconf.services.own import OwnDaemon

    try:
        daemon = OwnDaemon("qpsmtpd", paths)
        if not daemon.status().is_running:
            raise ServiceError("qpsmtpd is not running")
        said = daemon.adjust(["reload"], is_enabled=True)
    except ServiceError as error:
        click.echo(error, err=True)
        sys.exit(1)
    if said:
        click.echo(said, err=True)


def _load(directory: str, paths: Paths, is_prepare: bool) -> int:
    """Load a directory and, if asked, make what it needs; say what is wrong."""
    from smeconf.smtpd.config import ConfigError
    from smeconf.smtpd.listeners import Identity
    from smeconf.smtpd.loader import load
    from smeconf.smtpd.log_settings import LogSettings, prepare_log
    from smeconf.smtpd.startup import prepare

    try:
        configuration = load(directory, paths.root)
        if is_prepare:
            identity = Identity(configuration.settings.user, paths.root)
            prepare(configuration, identity, paths.service_run("qpsmtpd"))
            log = LogSettings.read(configuration.directory)
            prepare_log(log, paths.root, identity)
    except ConfigError as error:
        click.echo(error, err=True)
        return 1
    return 0
