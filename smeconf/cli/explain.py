"""``smeconf explain``: what drives what.

With a key, what a property is and which files, events and services it drives; with a
path, which fragments and properties made the lines of a generated file.
"""

from __future__ import annotations

import json

import click

from smeconf.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from smeconf.cli.generated import GeneratedFiles


@click.command()
@click.argument("what", metavar="KEY|PATH[:LINE]")
@click.argument("name", metavar="[PROP]", required=False)
@click.option(
    "--database", default="configuration", metavar="NAME", help="Where KEY is."
)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def explain(
    paths: Paths, what: str, name: str | None, database: str, as_json: bool
) -> None:
    """Say what a property drives, or what made a line of a generated file.

    KEY PROP, or KEY alone: its value, who set it last, and the files, events and
    services that it drives. PATH is a generated file, as the machine knows it or below
    the root; with :LINE, one line of it as it is on disk.
    """
    from smeconf.cli.generated import GeneratedFiles
    from smeconf.database import DatabaseError
    from smeconf.templates import TargetError, TemplateError

    try:
        files = GeneratedFiles(paths)
        if "/" in what:
            if name is not None:
                raise click.UsageError(f"{what} is a path, and takes no property")
            shown = _file(paths, files, what, as_json)
        else:
            shown = _subject(paths, files, what, name, database, as_json)
    except (DatabaseError, TargetError, TemplateError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    for fault in dict.fromkeys(files.faults):
        click.echo(f"smeconf: {fault}", err=True)
    click.echo(shown, nl=False)


def _subject(
    paths: Paths,
    files: GeneratedFiles,
    key: str,
    name: str | None,
    database: str,
    as_json: bool,
) -> str:
    from smeconf.cli.explain_property import Subject, as_object, as_text, table_of

    subject = Subject(paths, files, database, key)
    if name is None and not subject.is_value:
        if not as_json:
            return table_of(subject)
        every = map(subject.explain, subject.names())
        return _dump([as_object(one, files) for one in every])
    one = subject.explain(name)
    return _dump(as_object(one, files)) if as_json else as_text(one, files)


def _file(paths: Paths, files: GeneratedFiles, what: str, as_json: bool) -> str:
    from smeconf.cli.explain_file import FileOnDisk, as_object, as_text, line_as_text

    path, line = _split(what)
    file = FileOnDisk(paths, files, path)
    if line is None:
        return _dump(as_object(file)) if as_json else as_text(file)
    if as_json:
        return _dump(as_object(file, line))
    return line_as_text(file, line)


def _split(what: str) -> tuple[str, int | None]:
    """Return the path and the line of ``PATH:LINE``, or the path and None."""
    path, colon, line = what.rpartition(":")
    if colon and line.isascii() and line.isdigit():
        return path, int(line)
    return what, None


def _dump(table: object) -> str:
    return json.dumps(table, indent=2) + "\n"
