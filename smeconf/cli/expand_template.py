"""The command ``expand-template``: one target, outside of any event."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from smeconf.events.changes import Change
    from smeconf.paths import Paths
    from smeconf.system import FileState, System
    from smeconf.templates import Expansion, Layers, Metadata, Output, Snapshot

    Made = list[tuple[Output, Expansion | None]]

USAGE = 255

_USAGE = """\
usage: expand-template [--root DIR] [--stdout] [--diff] [--sources]
                       [--output_filename FILE] [--expand_queue DIR] PATH

Expand the template of PATH into its file, whose owner and mode are kept where its
metadata.toml does not give them. --stdout prints the text, --diff what differs from
the file, --sources what made each line: one of them, and nothing is written.
--output_filename names another file; --expand_queue a directory whose fragments lie
above all others. Exit status 1: nothing was written, and why.
"""

_FLAGS = ("--stdout", "--diff", "--sources")
_VALUES = ("--root", "--output_filename", "--expand_queue")


class _UsageError(Exception):
    """A command line that is not understood."""


class _Refused(Exception):
    """Why nothing is written."""


def main() -> None:
    """Expand one template; end with its exit status."""
    from smeconf.cli.options import settle_process

    settle_process()
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            place = error.filename or "standard output"
            sys.stderr.write(f"expand-template: {place}: {error.strerror}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is not tried again
        status = 1
    sys.exit(status)


def run(words: list[str]) -> int:
    """Run one command line; return its exit status."""
    try:
        options, arguments = _parse(words)
        (target,) = arguments
    except (_UsageError, ValueError):
        sys.stderr.write(_USAGE)
        return USAGE
    if target == "--help":
        sys.stdout.write(_USAGE)
        return 0
    return expand(
        target,
        options.get("--root"),
        options.get("how", ""),
        options.get("--output_filename"),
        options.get("--expand_queue"),
    )


def _parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return options and arguments, which may stand in any order."""
    options: dict[str, str] = {}
    arguments: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name.startswith("--"):  # --output-filename is --output_filename
            name = "--" + name[2:].replace("-", "_")
        if word == "--help":
            return {}, [word]
        if word == "--":
            arguments += left
        elif word in _FLAGS and options.setdefault("how", word) == word:
            continue
        elif name in _VALUES and (value := value if equals else next(left, "")):
            options[name] = value
        elif word.startswith("-"):
            raise _UsageError
        else:
            arguments.append(word)
    return options, arguments


def expand(
    target: str,
    root: str | None,
    how: str = "",
    output_filename: str | None = None,
    expand_queue: str | None = None,
) -> int:
    """Expand a target into its file, or as ``how`` says; return the exit status.

    ``how`` is an option that shows, or empty: write.  ``output_filename`` is another
    file, ``expand_queue`` a directory of templates above all others.
    """
    from smeconf.database import DatabaseError
    from smeconf.paths import Paths
    from smeconf.templates import Snapshot, TargetError, TemplateError

    paths = Paths(root)
    snapshot = Snapshot(paths)
    try:
        layers = _layers(paths, expand_queue)
        trace = how == "--sources"

        def make() -> Made:
            try:
                return _make(target, layers, snapshot, output_filename, trace=trace)
            finally:
                for warning in layers.warnings:
                    _say(warning, snapshot)

        if how == "--stdout":
            _show_text(make())
        elif how == "--sources":
            _show_sources(make(), snapshot)
        elif how == "--diff":
            _show_diff(_changes(make(), layers, paths, snapshot), snapshot)
        else:
            _write(
                lambda: _changes(make(), layers, paths, snapshot), layers, paths, target
            )
    except (TemplateError, TargetError, DatabaseError, _Refused) as error:
        _say(str(error), snapshot)
        return 1
    return 0


def _say(text: str, snapshot: Snapshot) -> None:
    from smeconf.events.plan import hide

    sys.stderr.write(f"expand-template: {hide(text, snapshot.secrets)}\n")


def _layers(paths: Paths, expand_queue: str | None) -> Layers:
    from smeconf.templates import Layers, plain_path

    if expand_queue is None:
        return Layers(paths)
    place = paths.under(plain_path(expand_queue))
    if not os.path.isdir(place):
        raise _Refused(f"{place}: there is no such directory of templates")
    return Layers(paths, [place])


def _make(
    target: str,
    layers: Layers,
    snapshot: Snapshot,
    output_filename: str | None,
    *,
    trace: bool,
) -> Made:
    """Return the files of a target, and what each is to hold; None: it is to go."""
    from dataclasses import replace

    from smeconf.templates import Expander, outputs, plain_path, text_of

    files = outputs(target, layers, snapshot)
    if output_filename is not None:
        path = plain_path(output_filename)
        if len(files) != 1:
            raise _Refused(
                f"{target}: makes {len(files)} files, which cannot all be /{path}"
            )
        files = [replace(files[0], path=path)]
    expander = Expander(layers, snapshot, trace=trace)
    return [(file, text_of(file, expander, snapshot.secrets)) for file in files]


def _data(expansion: Expansion | None) -> bytes:
    text = "" if expansion is None else expansion.text
    return text.encode("utf-8", "surrogateescape")


def _show_text(made: Made) -> None:
    for _, expansion in made:
        sys.stdout.buffer.write(_data(expansion))


def _show_sources(made: Made, snapshot: Snapshot) -> None:
    from smeconf.templates.sources import as_text

    for _, expansion in made:
        if expansion is not None:
            sys.stdout.write(as_text(expansion, snapshot.secrets))


def _changes(
    made: Made, layers: Layers, paths: Paths, snapshot: Snapshot
) -> list[Change]:
    """Return the files that are not yet what they are to be."""
    from smeconf.events.changes import Written, find_change
    from smeconf.system import FileState, System

    system = System()
    written = Written(paths, system)
    changes = []
    for file, expansion in made:
        path, new = paths.under(file.path), None
        try:
            old = system.find(path)
        except OSError as error:
            raise _Refused(f"/{file.path}: {error.strerror}") from error
        if expansion is not None:
            owned = _mode_and_owner(file.metadata, old, system)
            new = FileState(_data(expansion), *owned)
        # Of all files of this target: it is one template.
        is_secret = any(map(snapshot.is_secret, snapshot.reads))
        change = find_change(file, old, new, layers, paths, written, is_secret)
        if change is not None:
            changes.append(change)
    return changes


def _mode_and_owner(
    metadata: Metadata, old: FileState | None, system: System
) -> tuple[int, int, int]:
    """Return mode, user and group: those of the file, where metadata is silent."""
    said = metadata.said
    mode = metadata.mode if old is None or "mode" in said else old.mode
    if os.geteuid() != 0:  # nobody else can give files away
        uid, gid = os.geteuid(), os.getegid()
        return (mode, uid, gid) if old is None else (mode, old.uid, old.gid)
    key = "owner"
    try:
        is_kept = old is not None and key not in said
        uid = old.uid if old and is_kept else system.user_id(metadata.owner)
        key = "group"
        is_kept = old is not None and key not in said
        gid = old.gid if old and is_kept else system.group_id(metadata.group)
    except KeyError as error:
        name = getattr(metadata, key)
        raise _Refused(f"{said[key]}: {key}: the machine has no {name}") from error
    return mode, uid, gid


def _show_diff(changes: list[Change], snapshot: Snapshot) -> None:
    from smeconf.events.plan import NOT_SHOWN, hide, unified_diff

    for change in changes:
        if change.is_secret:
            sys.stdout.write(NOT_SHOWN.format(change.target))
            continue
        old = change.old.data if change.old else b""
        new = change.new.data if change.new else b""
        for line in unified_diff(change.target, old, new):
            sys.stdout.write(hide(line, snapshot.secrets))


def _write(
    expand: Callable[[], list[Change]], layers: Layers, paths: Paths, target: str
) -> None:
    """Install the files that are not yet what they are to be, all or none."""
    from smeconf.cli.report import terminal_report
    from smeconf.events.check import CheckError
    from smeconf.events.journal import InstallError
    from smeconf.events.single import write_files
    from smeconf.system import System

    beside = os.path.dirname(sys.executable)
    environment = {
        **os.environ,
        "SMECONF_ROOT": paths.root,
        "PATH": os.pathsep.join((beside, os.environ.get("PATH", os.defpath))),
    }
    try:
        write_files(
            expand,
            f"expand-template {target}",
            layers,
            paths,
            System(),
            environment,
            terminal_report(),
        )
    except (CheckError, InstallError) as error:
        raise _Refused(str(error)) from error
