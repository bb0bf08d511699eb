"""What a target comes to: which files, and the text of each.

Most targets are one file of their own path.  Their metadata may name another file, ask
for one file a record, have the text filtered line by line, or the file removed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jinja2
import jinja2.sandbox

from smeconf.templates.expand import Expander, Expansion
from smeconf.templates.layers import Layers
from smeconf.templates.metadata import Metadata, TargetError, plain_path
from smeconf.templates.records import DatabaseView, Snapshot
from smeconf.templates.sources import LineSource


@dataclass(frozen=True, slots=True)
class Output:
    """One file that a target makes.

    ``path`` lies below the root, without a leading slash.  ``variables`` are what the
    fragments see besides the databases: ``key`` and ``record``, of a target that makes
    a file for each record.
    """

    target: str
    path: str
    metadata: Metadata
    variables: Mapping[str, Any]


def outputs(target: str, layers: Layers, snapshot: Snapshot) -> list[Output]:
    """Return the files that a target makes: one, or one a record in byte order of keys.

    Two records never make one path, since a key takes the place of ``{key}`` as it is.
    Raises TargetError where the metadata is at fault or a key cannot name a file, and
    DatabaseError.
    """
    target = plain_path(target)
    metadata = layers.metadata(target)
    if not metadata.each:
        return [Output(target, metadata.output or target, metadata, {})]
    database, _, type = metadata.each.partition("/")
    view = DatabaseView(snapshot, database)
    return [
        Output(
            target,
            _output_path(target, metadata, key),
            metadata,
            {"key": key, "record": view[key]},
        )
        for key in view.of_type(type)
    ]


def _output_path(target: str, metadata: Metadata, key: str) -> str:
    """Return the path of the file of one record."""
    if key in ("", ".", "..") or "/" in key or "\0" in key:
        database = metadata.each.partition("/")[0]
        raise TargetError(
            f"/{target}: the key {key!r} of {database} cannot be part of a path: "
            f"rename or delete the record"
        )
    return plain_path(metadata.output.replace("{key}", key))


def text_of(
    output: Output, expander: Expander, secrets: Iterable[str] = ()
) -> Expansion | None:
    """Return what a file is to hold; None: it is to be removed.

    ``secrets`` are kept out of what an error says: hand in ``snapshot.secrets``.
    Raises TemplateError, TargetError and DatabaseError.
    """
    metadata = output.metadata
    if metadata.delete:
        return None
    expansion = expander.expand(output.target, output.variables)
    if metadata.filter:
        lines = _LineFilter(metadata.filter, metadata.said["filter"], secrets)
        return lines.apply(expansion)
    return expansion


class _LineFilter:
    """A ``filter`` of metadata; ``file`` is what it stands in."""

    def __init__(self, source: str, file: str, secrets: Iterable[str]) -> None:
        self._file = file
        self._secrets = secrets
        try:
            self._expression = _compile(source)
        except jinja2.TemplateSyntaxError as error:
            raise TargetError(f"{file}: filter: {error.message}") from error

    def apply(self, expansion: Expansion) -> Expansion:
        """Return an expansion of the lines that are left, each with its source where
        the expansion has them.  Raises TargetError."""
        text = []
        sources: list[LineSource] = []
        for number, (line, end) in enumerate(_lines(expansion.text)):
            value = self._value(line)
            if value is not None:
                text.append(value + end)
                count = sum(1 for _ in _lines(value + end))
                sources += expansion.lines[number : number + 1] * count
        return replace(expansion, text="".join(text), lines=tuple(sources))

    def _value(self, line: str) -> str | None:
        try:
            value = self._expression(line=line)
            if isinstance(value, jinja2.StrictUndefined):
                str(value)  # raises, and says what is undefined
        except Exception as error:
            raise self._fault(str(error), line) from error
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, jinja2.Undefined):
            raise self._fault(
                "an if without an else gives nothing: add else none", line
            )
        raise self._fault(f"gives {value!r}, which is neither a text nor none", line)

    def _fault(self, why: str, line: str) -> TargetError:
        shown = self._hide(line)
        return TargetError(
            f"{self._file}: filter: {self._hide(why)}, in the line {shown!r}"
        )

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            for shown in (secret, repr(secret)[1:-1]):
                text = text.replace(shown, "(secret)")
        return text


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield each line of a text, and its end."""
    *whole, rest = text.split("\n")
    yield from ((line, "\n") for line in whole)
    if rest:
        yield rest, ""


@functools.lru_cache(maxsize=32)
def _compile(source: str) -> Callable[..., Any]:
    environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined)
    return environment.compile_expression(source, undefined_to_none=False)
