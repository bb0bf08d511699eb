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
usage: expand-template [--root DIR] [--stdout] PATH

Expand the template of PATH into its file, whose owner and mode are kept. --stdout
prints the text and writes nothing. Exit status 1: nothing was written, and why.
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
    to_stdout = words[:1] == ["--stdout"]
    words = words[1:] if to_stdout else words
    if len(words) != 1 or words[0].startswith("-"):
        sys.stderr.write(_USAGE)
        return USAGE
    return expand(words[0], root, to_stdout=to_stdout)


def expand(target: str, root: str | None, *, to_stdout: bool) -> int:
    """Expand a target into its file, or to standard output; return the status."""
    from smeconf.database import DatabaseError
    from smeconf.paths import Paths
    from smeconf.system import System
    from smeconf.templates import Layers, TargetError, TemplateError

    paths, system = Paths(root), System()
    layers = Layers(paths)
    try:
        data = _text(layers, paths, target).encode("utf-8", "surrogateescape")
        if to_stdout:
            sys.stdout.buffer.write(data)
        else:
            _write(system, layers, paths, target, data)
    except (TemplateError, TargetError, DatabaseError) as error:
        sys.stderr.write(f"expand-template: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"expand-template: {target}: {error.strerror}\n")
        return 1
    return 0


def _text(layers: Layers, paths: Paths, target: str) -> str:
    from smeconf.templates import Expander, Snapshot

    return Expander(layers, Snapshot(paths)).expand(target).text


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
