"""Which fragments make a target.

A target is a path such as ``var/service/qpsmtpd/config/dnsbl_zones``.  Its template is
a directory of fragments, or one file, at that path in each layer: what is shipped,
then the site's ``templates-custom``.  A fragment of a higher layer replaces the one of
the same name; an empty one switches it off.  A layer that is a file replaces all below
it; a directory above a file replaces the file.

``template-begin`` stands first, ``template-end`` last, the rest in byte order.  A
directory without a ``template-begin`` gets the default one, in the comment style that
its metadata asks for.  What else ``metadata.toml`` says is told in ``metadata``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from smeconf.database.schema import nearest
from smeconf.paths import Paths, shipped
from smeconf.templates.metadata import (
    METADATA,
    Directory,
    Metadata,
    TargetError,
    plain_path,
    read_metadata,
)

BEGIN, END = "template-begin", "template-end"
# What editors and package managers leave behind.
_LEFT_BEHIND = ("~", ".swp", ".orig", ".rpmsave", ".rpmnew", ".rpmorig")


@dataclass(frozen=True, slots=True)
class Fragment:
    """One piece of a template, and where it lies."""

    name: str
    path: str


class Layers:
    """The search path of templates, as it was when each template was first looked at.

    ``extra`` are directories with priority over all others.  ``warnings`` are lines
    for the administrator: files that lie among fragments and were skipped.
    """

    def __init__(self, paths: Paths, extra: Sequence[str] = ()) -> None:
        self.warnings: list[str] = []
        self._site = paths.site
        self._extra = tuple(extra)
        custom = os.path.join(paths.site, "templates-custom")
        self._roots = (shipped("templates"), custom, *self._extra)
        self._metadata: dict[str, Metadata] = {}

    def fragments(self, target: str) -> list[Fragment]:
        """Return the fragments of a target, in order.

        Raises TargetError where there is none, or one cannot be read.
        """
        target = plain_path(target)
        found, is_directory = self._gather(target)
        if not found:
            raise TargetError(f"/{target}: no template was found")
        if is_directory and BEGIN not in found:
            found = self._framed(target, found)
        fragments = [found.pop(BEGIN)] if BEGIN in found else []
        end = [found.pop(END)] if END in found else []
        fragments += (found[name] for name in sorted(found, key=os.fsencode))
        return [one for one in fragments + end if _has_text(one.path)]

    def metadata(self, target: str) -> Metadata:
        """Return a target's or a directory's metadata, merged over the layers.

        Raises TargetError naming the file and what in it is wrong.
        """
        target = plain_path(target)
        if target not in self._metadata:
            files = [os.path.join(root, target, METADATA) for root in self._roots]
            found = filter(os.path.lexists, files)
            self._metadata[target] = read_metadata(found)
        return self._metadata[target]

    def directory_of(self, target: str) -> Directory | None:
        """Return the nearest directory above a target that is checked as a whole.

        Raises TargetError where the metadata of a directory is at fault.
        """
        directory = plain_path(target)
        while directory := os.path.dirname(directory):
            metadata = self.metadata(directory)
            if check := metadata.check_directory:
                return Directory(directory, check, metadata.generation)
        return None

    def _gather(
        self, target: str, above: tuple[str, ...] = ()
    ) -> tuple[dict[str, Fragment], bool]:
        """Return fragments by name, and whether they come from a directory.

        ``above`` are the targets whose template this one is.
        """
        metadata = self.metadata(target)
        above = (*above, target)
        if metadata.template in above:
            raise TargetError(
                f"{metadata.said['template']}: template: /{metadata.template} would "
                f"stand on itself"
            )
        found: dict[str, Fragment] = {}
        is_directory = False
        if metadata.template:
            found, is_directory = self._gather(metadata.template, above)
        for root in self._roots_of(metadata):
            place = os.path.join(root, target)
            kind = _find_kind(place)
            if kind == stat.S_IFDIR:
                own = self._fragments_in(place)
                if not own and METADATA in os.listdir(place):
                    continue  # it says something of the target, and adds nothing
                found = {**found, **own} if is_directory else own
                is_directory = True
            elif kind is not None:
                found, is_directory = {target: Fragment(target, place)}, False
        return found, is_directory

    def _roots_of(self, metadata: Metadata) -> Sequence[str]:
        """Return the layers of a target's fragments, the lowest first."""
        if not metadata.queue:
            return self._roots
        queue = [os.path.join(self._site, name) for name in metadata.queue]
        return (*queue, *self._extra)

    def _fragments_in(self, place: str) -> dict[str, Fragment]:
        found = {}
        for name in sorted(_names_in(place), key=os.fsencode):
            path = os.path.join(place, name)
            if name == METADATA or os.path.isdir(path):
                continue  # a directory may hold templates of its own
            if name.endswith(_LEFT_BEHIND):
                warning = f"{path}: left behind by an editor or a package, skipped"
                if warning not in self.warnings:
                    self.warnings.append(warning)
            else:
                found[name] = Fragment(name, path)
        return found

    def _framed(self, target: str, found: dict[str, Fragment]) -> dict[str, Fragment]:
        """Return fragments with the default banner, and the end that belongs to it."""
        style, file = self._style_of(target)
        if style == "none":
            return found
        suffix = f"-{style}" if style else ""
        begin = self._find_default(BEGIN + suffix)
        if begin is None:
            known = sorted(self._styles())
            likely = nearest(style, known) or f"; known are {', '.join(known)}"
            raise TargetError(f"{file}: comment: there is no {BEGIN}{suffix}{likely}")
        framed = {BEGIN: Fragment(BEGIN, begin), **found}
        if style and END not in found and (end := self._find_default(END + suffix)):
            framed[END] = Fragment(END, end)
        return framed

    def _style_of(self, target: str) -> tuple[str, str]:
        """Return the comment style that a target or what it stands on asks for, and
        the file that says so."""
        metadata = self.metadata(target)
        while "comment" not in metadata.said and metadata.template:
            metadata = self.metadata(metadata.template)
        return metadata.comment, metadata.said.get("comment", f"/{target}")

    def _find_default(self, name: str) -> str | None:
        for root in reversed(self._roots):
            path = os.path.join(root, name)
            if os.path.lexists(path):
                return path
        return None

    def _styles(self) -> set[str]:
        names = {name for root in self._roots for name in _names_in(root)}
        begin = f"{BEGIN}-"
        return {name.removeprefix(begin) for name in names if name.startswith(begin)}


def _names_in(place: str) -> list[str]:
    """Return what lies in a directory; nothing where there is none."""
    try:
        return os.listdir(place)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TargetError(f"{place}: {error.strerror}") from error


def _find_kind(path: str) -> int | None:
    """Return what kind of file a path is, None where nothing is there."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            raise _unreadable(path, error) from error
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def _has_text(path: str) -> bool:
    """Whether a fragment is not empty.  Raises TargetError if it cannot be read."""
    try:
        # A named pipe would wait for ever for somebody to write.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(file)
    finally:
        os.close(file)
    if not stat.S_ISREG(status.st_mode):
        raise TargetError(f"{path}: is no file, and no fragment: remove it")
    return status.st_size > 0


def _unreadable(path: str, error: OSError) -> TargetError:
    is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    if is_missing and os.path.islink(path):
        goal = os.readlink(path)
        return TargetError(
            f"{path}: is a symlink to {goal}, which is not there: mend or remove it"
        )
    return TargetError(f"{path}: cannot be read: {error.strerror}")
