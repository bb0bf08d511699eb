"""A machine that fails, or dies, at a step of its own choosing.

    assert is_killed(lambda system: signal(machine, "try", system), at=7)

is a kill -9 at the seventh step: every method of System that changes something is one.
The process that is killed is a child of the test.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from smeconf.events import Report, Run, find_event
from smeconf.system import System
from tests.support.config import Machine

CHANGING = (
    *("write", "replace", "sync", "link", "rename", "repair", "remove"),
    *("make_directory", "remove_directory", "run"),
)


class FaultySystem(System):
    """Calls ``fault`` with the number and the name of each step, just before it."""

    def __init__(self, fault: Callable[[int, str], None]) -> None:
        self.steps = 0
        self._fault = fault

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in CHANGING:
            return found

        def step(*args: Any, **keywords: Any) -> Any:
            self.steps += 1
            self._fault(self.steps, name)
            return found(*args, **keywords)

        return step


def signal_event(machine: Machine, event: str, system: System) -> None:
    """Run an event on this system."""
    Run(find_event(event, machine.paths), [], machine.paths, system, Report()).apply()


def count_steps(act: Callable[[System], object]) -> int:
    """Return how many steps a thing that is done has."""
    system = FaultySystem(lambda number, name: None)
    act(system)
    return system.steps


def is_killed(act: Callable[[System], object], at: int) -> bool:
    """Do a thing that is killed just before a step; tell whether it came so far."""

    def die(number: int, name: str) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        try:
            act(FaultySystem(die))
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL
