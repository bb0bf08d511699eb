"""The command ``expand-template``: one target, outside of any event."""

from __future__ import annotations

import sys

from smeconf.cli.options import take_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from smeconf.paths import Paths
    from smeconf.system import System
    from smeconf.templates import Layers

USAGE = 255

_USAGE = """\
usage: expand-template [--root DIR] [--stdout | --diff] PATH

Expand the template of PATH into its file, whose owner and mode are kept. --stdout
prints the text, --diff what differs from the file, and neither writes anything. Exit
status 1: nothing was written, and why.
"""


def main() -> None:
    """Expand one template; end with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run one command line; return its exit status."""
    root, words = take_root(words)
    if words[:1] == ["--help"]:
        sys.stdout.write(_USAGE)
        return 0
    how = words[0] if words[:1] in (["--stdout"], ["--diff"]) else ""
    words = words[1:] if how else words
    if len(words) != 1 or words[0].startswith("-"):
        sys.stderr.write(_USAGE)
        return USAGE
    return expand(words[0], root, how)


def expand(target: str, root: str | None, how: str = "") -> int:
    """Expand a target into its file, or as ``how`` says; return the status."""
    from smeconf.database import DatabaseError
    from smeconf.paths import Paths
    from smeconf.system import System
    from smeconf.templates import Layers, TargetError, TemplateError

    paths, system = Paths(root), System()
    layers = Layers(paths)
    try:
        text, secrets = _text(layers, paths, target)
        data = text.encode("utf-8", "surrogateescape")
        if how == "--stdout":
            sys.stdout.buffer.write(data)
        elif how == "--diff":
            _show_diff(system, paths, target, data, secrets)
        else:
            _write(system, layers, paths, target, data)
    except (TemplateError, TargetError, DatabaseError) as error:
        sys.stderr.write(f"expand-template: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"expand-template: {target}: {error.strerror}\n")
        return 1
    return 0


def _text(layers: Layers, paths: Paths, target: str) -> tuple[str, set[str]]:
    """Return the text of a target, and the secrets in it."""
    from smeconf.templates import Expander, Snapshot

    snapshot = Snapshot(paths)
    return Expander(layers, snapshot).expand(target).text, snapshot.secrets


def _show_diff(
    system: System, paths: Paths, target: str, data: bytes, secrets: set[str]
) -> None:
    from smeconf.plan import hide, unified_diff

    old = system.find(paths.under(target))
    for line in unified_diff(target.strip("/"), old.data if old else b"", data):
        sys.stdout.write(hide(line, secrets))


def _write(
    system: System, layers: Layers, paths: Paths, target: str, data: bytes
) -> None:
    """Write the file unless it holds that already."""
    import os

    from smeconf.system import FileState

    path = paths.under(target)
    old = system.find(path)
    if old is None:
        mode = layers.metadata(target).mode
        system.replace(path, FileState(data, mode, os.geteuid(), os.getegid()))
    elif old.data != data:
        system.replace(path, FileState(data, old.mode, old.uid, old.gid))
