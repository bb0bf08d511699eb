"""What a service is to an event: it can be adjusted, and asked how it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class ServiceError(Exception):
    """A service that did not do what it was told; says why in one line."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a service is.

    ``pid`` is that of its main process.  ``configuration`` is the id of the
    configuration that it serves; empty where that has none, None where nobody knows.
    """

    is_running: bool
    pid: int | None = None
    detail: str = ""
    configuration: str | None = None


class Service(Protocol):
    """A service, whoever makes it run."""

    name: str

    def adjust(self, actions: Sequence[str], is_enabled: bool) -> str:
        """Do what an event asks, in SME's words; see ``words``.

        A text is taken as the lines of an action file.  Returns what there is to say,
        often nothing.  Raises ServiceError where the service does not do it.
        """

    def status(self) -> Status:
        """Return how the service is.  Raises ServiceError where nobody answers."""
