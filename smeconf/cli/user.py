"""The command ``smeconf user``: who may log in to send mail."""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from smeconf.paths import Paths
from smeconf.smtpd.passwords import (
    MAX_NAME_BYTES,
    MAX_PASSWORD_BYTES,
    PASSWORD_FILE,
    PasswordError,
    PasswordFile,
    hash_password,
    is_plain_name,
    needs_rehash,
    verify,
)
from smeconf.smtpd.sasl import has_control

_LEAST_CHARACTERS = 8


@click.group()
def user() -> None:
    """Say who may log in to send mail, and with which password.

    The names and hashed passwords lie in var/lib/qpsmtpd/passwd. The filter heeds a
    change at once, without an event. The accounts database plays no part in this.
    """


_from_stdin = click.option(
    "--stdin", "is_piped", is_flag=True, help="Read the password, a line, from there."
)
_is_forced = click.option(
    "--force", "is_forced", is_flag=True, help="Take a short password, too."
)


@user.command()
@click.argument("name")
@_from_stdin
@_is_forced
@click.pass_obj
def add(paths: Paths, name: str, is_piped: bool, is_forced: bool) -> None:
    """Let NAME log in. The password is asked for twice."""
    _check_name(name)
    with _clean_errors():
        file = _password_file(paths)
        # Before anybody types a password, and again when it is written.
        if file.has(name) or not file.put(
            name, hash_password(_new_password(is_piped, is_forced)), is_new=True
        ):
            raise click.ClickException(f"{name} is there: smeconf user passwd {name}")
    click.echo(f"{name} may log in")


@user.command()
@click.argument("name")
@_from_stdin
@_is_forced
@click.pass_obj
def passwd(paths: Paths, name: str, is_piped: bool, is_forced: bool) -> None:
    """Give NAME another password. It is asked for twice."""
    with _clean_errors():
        file = _password_file(paths)
        if not file.has(name) or not file.put(
            name, hash_password(_new_password(is_piped, is_forced)), is_new=False
        ):
            raise _unknown(name)
    click.echo(f"{name} has another password")


@user.command()
@click.argument("name")
@click.pass_obj
def delete(paths: Paths, name: str) -> None:
    """Let NAME log in no more. Sessions that are logged in go on."""
    with _clean_errors():
        if not _password_file(paths).delete(name):
            raise _unknown(name)
    click.echo(f"{name} may not log in any more")


@user.command("list")
@click.pass_obj
def list_names(paths: Paths) -> None:
    """Print who may log in, a name a line; exit status 1, where lines are broken."""
    with _clean_errors():
        file = _password_file(paths)
        names, faults = file.names(), file.faults()
    for name in names:
        click.echo(name)
    for fault in faults:
        click.echo(f"smeconf: {fault}", err=True)
    sys.exit(int(bool(faults)))


@user.command()
@click.argument("name")
@_from_stdin
@click.pass_obj
def check(paths: Paths, name: str, is_piped: bool) -> None:
    """Ask for the password of NAME; exit status 1, where it is another."""
    with _clean_errors():
        stored = _password_file(paths).find(name)
        if stored is None:
            raise _unknown(name)
        if not verify(_password(is_piped, is_new=False), stored):
            raise click.ClickException(f"that is not the password of {name}")
        if needs_rehash(stored):
            click.echo(
                f"smeconf: the hash is of another strength than new ones: "
                f"smeconf user passwd {name}",
                err=True,
            )
    click.echo(f"that is the password of {name}")


@contextmanager
def _clean_errors() -> Iterator[None]:
    """Turn what a password file raises into one line."""
    try:
        yield
    except PasswordError as error:
        raise click.ClickException(str(error)) from error


def _password_file(paths: Paths) -> PasswordFile:
    return PasswordFile(paths.under(PASSWORD_FILE), _filter_group(paths))


def _filter_group(paths: Paths) -> int | None:
    """Return the group of whom the filter runs as; None: whoever starts it."""
    from smeconf.database import Database, DatabaseError

    if os.geteuid() != 0:
        return None  # nobody else can give files away, nor become another
    try:
        record = Database.open("configuration", paths).read().find("qpsmtpd")
    except DatabaseError as error:
        raise click.ClickException(str(error)) from error
    name = record.properties.get("User") if record is not None else None
    try:
        return pwd.getpwnam(name or "qpsmtpd").pw_gid
    except KeyError:
        return None


def _check_name(name: str) -> None:
    if not is_plain_name(name):
        raise click.ClickException(
            f"{name!r} cannot be a name: 1 to {MAX_NAME_BYTES} bytes, without blanks, "
            f"colons and control characters, and with no # in front"
        )


def _unknown(name: str) -> click.ClickException:
    return click.ClickException(
        f"{name!r} is not there: smeconf user list shows who is"
    )


def _new_password(is_piped: bool, is_forced: bool) -> str:
    """Return a password that may be set."""
    password = _password(is_piped, is_new=True)
    if len(password) < _LEAST_CHARACTERS and not is_forced:
        raise click.ClickException(
            f"the password has fewer than {_LEAST_CHARACTERS} characters: take a "
            f"longer one, or --force"
        )
    return password


def _password(is_piped: bool, *, is_new: bool) -> str:
    """Return a password from the terminal or, if piped, standard input.

    It never comes as an argument, which all processes of a machine can read.
    """
    if is_piped:
        data = sys.stdin.buffer.readline(MAX_PASSWORD_BYTES + 3)
        data = data.removesuffix(b"\n").removesuffix(b"\r")
    elif sys.stdin.isatty():
        text = click.prompt(
            "Password", hide_input=True, confirmation_prompt=is_new, err=True
        )
        data = text.encode("utf-8", "surrogateescape")
    else:
        raise click.ClickException(
            "standard input is no terminal: --stdin reads the password from it"
        )
    return _checked(data)


def _checked(data: bytes) -> str:
    """Return the text of a password that a client could send."""
    if not data:
        raise click.ClickException("the password is empty")
    if len(data) > MAX_PASSWORD_BYTES:
        raise click.ClickException(
            f"the password is longer than {MAX_PASSWORD_BYTES} bytes"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise click.ClickException("the password is not in UTF-8") from None
    if has_control(text):
        raise click.ClickException("the password holds a control character")
    return text
