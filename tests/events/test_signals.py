"""An event that is told to stop puts everything back; one that is killed, the next."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from smeconf.events import EventError, Report
from smeconf.events.repair import repair
from smeconf.system import System
from tests.support.config import SECONDS, FakeDaemon, Machine
from tests.support.faults import FaultySystem, count_steps, signal_event
from tests.support.gate import Gate

STOPPED = "signal-event: interrupted\nsignal-event try: failed, nothing was changed\n"


def prepared(place: Path) -> Machine:
    """A machine where ``try`` changes two files and makes ``etc/b``."""
    place.mkdir(exist_ok=True)
    machine = Machine(place)
    machine.records("Word=old\nqpsmtpd=service|status|enabled\n")
    for target in ("etc/a", "etc/b", "etc/c"):
        machine.fragment(target, "template-begin", "")
        machine.fragment(target, "10", "{{ Word }}\n")
    machine.event("before", ["etc/a", "etc/c"])
    machine.signal("before")
    machine.event("try", ["etc/a", "etc/b", "etc/c"])
    machine.records("Word=new\nqpsmtpd=service|status|enabled\n")
    return machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return prepared(tmp_path)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """SIGINT reaches what we start, though a shell may have had us ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def gate(machine: Machine) -> Iterator[Gate]:
    """An action of ``try`` waits at this gate; its process is in ``pid``."""
    with Gate(machine.root / "gate") as gate:
        script = f"echo $$ >{machine.path('pid')}; {gate.script}"
        machine.event("try", actions={"S50": script})
        yield gate


Contents = tuple[str | None, ...]


def contents(machine: Machine) -> Contents:
    paths = [machine.path(f"etc/{name}") for name in "abc"]
    return tuple(path.read_text() if path.exists() else None for path in paths)


OLD: Contents = ("old\n", None, "old\n")
NEW: Contents = ("new\n", "new\n", "new\n")


def end(run: subprocess.Popen[bytes]) -> tuple[int, str]:
    said, _ = run.communicate(timeout=SECONDS)
    return run.returncode, said.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_in_the_middle_of_an_action_puts_files_back(
    machine: Machine, gate: Gate, number: int
) -> None:
    """And ends the action."""
    run = machine.start("signal-event", "try")
    gate.await_arrival()
    assert contents(machine) == NEW

    run.send_signal(number)

    assert end(run) == (1, STOPPED)
    assert contents(machine) == OLD
    with pytest.raises(ProcessLookupError):
        os.kill(int(machine.read("pid")), 0)
    assert os.listdir(machine.path("var/lib/smeconf/journal")) == []


def test_service_that_was_told_is_told_again_when_a_signal_comes(
    machine: Machine, gate: Gate
) -> None:
    machine.event("try", services={"qpsmtpd": "reload"})
    machine.path("etc/smeconf/events/try/S50").rename(
        machine.path("etc/smeconf/events/try/S95")
    )
    with FakeDaemon(machine) as daemon:
        run = machine.start("signal-event", "try")
        gate.await_arrival()

        run.send_signal(signal.SIGTERM)

        assert end(run) == (1, STOPPED)
    assert daemon.requests == ["reload", "reload"]


def test_signal_while_a_check_runs_changes_nothing(
    machine: Machine, tmp_path: Path
) -> None:
    with Gate(tmp_path / "check-gate") as gate:
        check = machine.write("check", f"#!/bin/sh\n{gate.script}\n", 0o755)
        machine.fragment("etc/a", "metadata.toml", f'check = ["{check}", "{{}}"]')
        run = machine.start("signal-event", "try")
        gate.await_arrival()

        run.send_signal(signal.SIGTERM)

        assert end(run) == (1, STOPPED)
    assert contents(machine) == OLD


def test_signal_while_it_waits_ends_the_caller_and_not_the_event(
    machine: Machine, gate: Gate
) -> None:
    first = machine.start("signal-event", "try")
    gate.await_arrival()
    second = machine.start("signal-event", "try")
    assert second.stdout is not None
    assert second.stdout.readline().startswith(b"waiting for try")

    second.send_signal(signal.SIGTERM)

    status, said = end(second)
    assert (status, said.splitlines()[0]) == (1, "signal-event: interrupted")
    gate.let_pass()
    assert end(first) == (0, "")
    assert contents(machine) == NEW


def test_loss_of_the_terminal_does_not_stop_an_event(
    machine: Machine, gate: Gate
) -> None:
    run = machine.start("signal-event", "try")
    gate.await_arrival()

    run.send_signal(signal.SIGHUP)
    gate.let_pass()

    assert end(run) == (0, "")
    assert contents(machine) == NEW


def test_event_that_was_killed_is_undone_by_the_next_which_says_so(
    machine: Machine, gate: Gate
) -> None:
    run = machine.start("signal-event", "try")
    gate.await_arrival()
    run.kill()
    assert end(run) == (-signal.SIGKILL, "")
    assert contents(machine) == NEW
    gate.let_pass(2)

    (said,) = machine.signal("before")

    assert said.startswith("try of 20")
    assert said.endswith(
        f"Z (process {run.pid}) had been cut off: its files were put back as they were"
    )
    assert contents(machine) == ("new\n", None, "new\n")


def interrupt_at(steps: set[int]) -> System:
    def interrupt(number: int, name: str) -> None:
        if number in steps:
            raise KeyboardInterrupt

    return FaultySystem(interrupt)


def test_interrupt_at_any_step_leaves_a_whole(tmp_path: Path) -> None:
    """And where it is said that nothing was changed, nothing was."""
    steps = count_steps(partial(signal_event, prepared(tmp_path / "twin"), "try"))
    assert steps > 20
    for step in range(1, steps + 1):
        machine = prepared(tmp_path / str(step))

        said_to_be, left = NEW, list[str]()
        try:
            signal_event(machine, "try", interrupt_at({step}))
        except EventError as error:
            said_to_be, left = OLD, list(error.left)
        except KeyboardInterrupt:  # before it began, or when it was over
            said_to_be = NEW if contents(machine) == NEW else OLD

        assert left == [], step
        assert contents(machine) == said_to_be, step
        assert repair(machine.paths, System(), Report()) == []
        assert contents(machine) == said_to_be, step
        assert machine.signal("try") == [], step
        assert contents(machine) == NEW, step


def test_second_interrupt_while_files_are_put_back_leaves_that_to_a_repair(
    tmp_path: Path,
) -> None:
    twin = prepared(tmp_path / "twin")
    steps = count_steps(partial(signal_event, twin, "try"))
    first = int(steps * 0.6)
    for second in range(first + 1, first + 12):
        machine = prepared(tmp_path / str(second))

        with pytest.raises((EventError, KeyboardInterrupt)):
            signal_event(machine, "try", interrupt_at({first, second}))

        assert repair(machine.paths, System(), Report()) == []
        assert contents(machine) == OLD, second
