"""Events: from a changed database to services that run on it, whole or not at all."""

from smeconf.events.changes import Change
from smeconf.events.definition import Event, UnknownEvent, event_names, find_event
from smeconf.events.log import Report
from smeconf.events.run import EventError, Run

__all__ = [
    "Change",
    "Event",
    "EventError",
    "Report",
    "Run",
    "UnknownEvent",
    "event_names",
    "find_event",
]
