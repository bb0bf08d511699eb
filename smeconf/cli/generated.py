"""Every file that the events of a machine generate, and what drives each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from smeconf.database import DatabaseError
from smeconf.events import UnknownEvent, event_names, find_event
from smeconf.paths import Paths
from smeconf.services import ServiceError
from smeconf.templates import (
    Expander,
    Expansion,
    Layers,
    Output,
    Snapshot,
    TargetError,
    TemplateError,
    outputs,
    text_of,
)
from smeconf.templates.names import ANY_PROPERTY
from smeconf.templates.records import Read
from smeconf.templates.sources import Place

_FAULTS = (TargetError, TemplateError, DatabaseError)


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """One generated file, and the names of the events that expand it."""

    output: Output
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Driven:
    """A generated file that a property drives, and the fragments' lines that read it.

    ``places`` are paths and lines, sorted.
    """

    file: GeneratedFile
    places: Sequence[Place]


class GeneratedFiles:
    """The generated files of a machine.

    ``services`` are, for each event, the services that it adjusts; ``faults`` is what
    could not be looked into, a line each, and fills while files are looked into.
    """

    def __init__(self, paths: Paths) -> None:
        self.snapshot = Snapshot(paths)
        self.services: dict[str, Mapping[str, Sequence[str]]] = {}
        self.faults: list[str] = []
        self._layers = Layers(paths)
        self._events: dict[str, list[str]] = {}  # of each target
        for name in event_names(paths):
            try:
                event = find_event(name, paths)
            except (UnknownEvent, ServiceError) as error:
                self.faults.append(str(error))
                continue
            self.services[name] = event.services
            for target in event.targets:
                self._events.setdefault(target, []).append(name)
        self._reads: list[tuple[GeneratedFile, dict[Read, set[Place]]]] | None = None

    def files(self) -> Iterator[GeneratedFile]:
        """Yield the files of all events, by target."""
        for target in sorted(self._events):
            try:
                yield from self._files_of(target)
            except _FAULTS as error:
                self.faults.append(str(error))

    def find(self, path: str) -> GeneratedFile | None:
        """Return the file at a path below the root (no leading slash), or None.

        A template that no event expands has a file, too.
        """
        for file in self.files():
            if file.output.path == path:
                return file
        try:
            own = next(self._files_of(path), None)
        except _FAULTS:
            return None
        try:
            self._layers.fragments(path)
        except TargetError:
            return None
        return own if own is not None and own.output.path == path else None

    def expand(self, file: GeneratedFile) -> Expansion | None:
        """Return what a file is to hold, traced; None: it is to be removed.

        Raises TemplateError, TargetError and DatabaseError.
        """
        return text_of(file.output, self._expander(file), self.snapshot.secrets)

    def driven_by(self, key: str, name: str | None, database: str) -> list[Driven]:
        """Return the files that a property (name None: a single value) drives."""
        names = (name,) if name is None else (name, ANY_PROPERTY)
        wanted = [(database, one, word) for one in (key, None) for word in names]
        found = []
        for file, reads in self._all_reads():
            places = set().union(*(reads.get(read, ()) for read in wanted))
            if places:
                found.append(Driven(file, sorted(places)))
        return found

    def names_of(self, key: str, database: str) -> list[str]:
        """Return the properties of a record that templates name, sorted."""
        named = {
            read[2]
            for _, reads in self._all_reads()
            for read in reads
            if read[0] == database
            and read[1] in (key, None)
            and read[2] not in (None, ANY_PROPERTY)
        }
        return sorted(named)

    def _all_reads(self) -> list[tuple[GeneratedFile, dict[Read, set[Place]]]]:
        if self._reads is None:
            self._reads = [(file, self._reads_of(file)) for file in self.files()]
        return self._reads

    def _reads_of(self, file: GeneratedFile) -> dict[Read, set[Place]]:
        """Return where a file's fragments name each read, or have made it."""
        reads: dict[Read, set[Place]] = {}
        expander = self._expander(file)
        output = file.output
        try:
            for one in expander.mentions(output.target, output.variables):
                reads.setdefault(one.read, set()).add((one.fragment, one.line))
            for line in expander.expand(output.target, output.variables).lines:
                for read in line.reads - reads.keys():
                    reads[read] = {(line.fragment, line.line)}
        except _FAULTS as error:
            self.faults.append(str(error))
        return reads

    def _files_of(self, target: str) -> Iterator[GeneratedFile]:
        events = tuple(self._events.get(target, ()))
        for output in outputs(target, self._layers, self.snapshot):
            yield GeneratedFile(output, events)

    def _expander(self, file: GeneratedFile) -> Expander:
        event = file.events[0] if file.events else ""
        return Expander(self._layers, self.snapshot, event, trace=True)
