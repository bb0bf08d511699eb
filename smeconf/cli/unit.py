"""The command ``smeconf unit``: the filter's unit for systemd."""

from __future__ import annotations

import click

from smeconf.paths import Paths


@click.command()
@click.argument("name", default="qpsmtpd")
@click.pass_obj
def unit(paths: Paths, name: str) -> None:
    """Print the systemd unit of the filter, or of service NAME.

    It names this installation and this root:

    \b
        smeconf unit > /etc/systemd/system/qpsmtpd.service
        systemctl daemon-reload
        systemctl enable --now qpsmtpd
    """
    from smeconf.services import ServiceError
    from smeconf.services.unit import unit_text

    try:
        text = unit_text(name, paths)
    except ServiceError as error:
        raise click.ClickException(str(error)) from error
    click.echo(text, nl=False)
