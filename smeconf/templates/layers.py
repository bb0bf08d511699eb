"""Which fragments make a target, and what its metadata says.

A target is a path such as ``var/service/qpsmtpd/config/dnsbl_zones``.  Its template is
a directory of fragments, or one file, at that path in each layer: what is shipped,
then the site's ``templates-custom``.  A fragment of a higher layer replaces the one of
the same name; an empty one switches it off.  A layer that is a file replaces all below
it.

``metadata.toml`` in the template's directory says more of the target: ``owner``,
``group``, ``mode``, and ``template``, another template whose fragments lie below its
own.  In a directory above targets it may give a ``check_directory``: the command that
must accept the directory before anything in it is installed.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from smeconf.paths import Paths, shipped

METADATA = "metadata.toml"
BEGIN, END = "template-begin", "template-end"
# What editors and package managers leave behind.
_LEFT_BEHIND = ("~", ".swp", ".orig", ".rpmsave", ".rpmnew", ".rpmorig")


class TargetError(Exception):
    """A target without a template, or metadata that cannot be read."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One piece of a template, and where it lies."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Metadata:
    """How a target is installed.  ``template``: what its fragments are laid upon."""

    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    template: str = ""


class Layers:
    """The search path of templates.

    ``extra`` are directories with priority over all others.
    """

    def __init__(self, paths: Paths, extra: Sequence[str] = ()) -> None:
        custom = os.path.join(paths.site, "templates-custom")
        self._roots = (shipped("templates"), custom, *extra)
        self._begin = os.path.join(shipped("templates"), BEGIN)

    def fragments(self, target: str) -> list[Fragment]:
        """Return the fragments of a target, in order.

        Raises TargetError where there is none.
        """
        target = target.strip("/")
        found, is_directory = self._gather(target)
        if not found:
            raise TargetError(f"/{target}: no template was found")
        if is_directory and BEGIN not in found:
            found[BEGIN] = Fragment(BEGIN, self._begin)
        fragments = [found.pop(BEGIN)] if BEGIN in found else []
        end = [found.pop(END)] if END in found else []
        fragments += (found[name] for name in sorted(found, key=os.fsencode))
        return [one for one in fragments + end if os.path.getsize(one.path)]

    def metadata(self, target: str) -> Metadata:
        """Return a target's metadata, merged over the layers.

        Raises TargetError naming the file and what in it is wrong.
        """
        metadata = Metadata()
        for path in self._metadata_files(target.strip("/")):
            metadata = _merge(metadata, path, _read_toml(path))
        return metadata

    def directory_check(self, target: str) -> tuple[str, list[str]] | None:
        """Return the directory above a target that is checked as a whole, and the
        command that checks it, ``{}`` standing for the directory; or None."""
        directory = target.strip("/")
        while directory := os.path.dirname(directory):
            for path in reversed(list(self._metadata_files(directory))):
                command = _read_toml(path).get("check_directory")
                if command is not None:
                    return directory, _words(path, command)
        return None

    def _gather(
        self, target: str, above: tuple[str, ...] = ()
    ) -> tuple[dict[str, Fragment], bool]:
        """Return fragments by name, and whether any layer is a directory.

        ``above`` are the targets whose template this one is.
        """
        base = self.metadata(target).template.strip("/")
        above = (*above, target)
        if base in above:
            raise TargetError(f"/{above[0]}: its template stands on /{base} in a ring")
        found, is_directory = self._gather(base, above) if base else ({}, False)
        for root in self._roots:
            place = os.path.join(root, target)
            if os.path.isfile(place):
                found, is_directory = {target: Fragment(target, place)}, False
            elif os.path.isdir(place):
                if not is_directory:
                    found = {}
                is_directory = True
                for name in os.listdir(place):
                    path = os.path.join(place, name)
                    if os.path.isfile(path) and _is_fragment(name):
                        found[name] = Fragment(name, path)
        return found, is_directory

    def _metadata_files(self, target: str) -> Iterator[str]:
        for root in self._roots:
            path = os.path.join(root, target, METADATA)
            if os.path.isfile(path):
                yield path


def _is_fragment(name: str) -> bool:
    return name != METADATA and not name.endswith(_LEFT_BEHIND)


def _read_toml(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError) as error:
        raise TargetError(f"{path}: {error}") from error


def _merge(metadata: Metadata, path: str, table: dict[str, object]) -> Metadata:
    for word, value in table.items():
        if word == "mode":
            metadata = replace(metadata, mode=_mode(path, value))
        elif word in ("owner", "group", "template") and isinstance(value, str):
            metadata = replace(metadata, **{word: value})  # type: ignore[arg-type]
        elif word != "check_directory":
            raise TargetError(f"{path}: {word} = {value!r} is not understood")
    return metadata


def _mode(path: str, value: object) -> int:
    try:
        if isinstance(value, str):
            return int(value, 8)
    except ValueError:
        pass
    raise TargetError(f'{path}: mode is octal in quotes, such as "0640"')


def _words(path: str, command: object) -> list[str]:
    if isinstance(command, list) and all(isinstance(word, str) for word in command):
        return command
    raise TargetError(f"{path}: check_directory is a list of words")
