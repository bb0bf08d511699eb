"""One event at a time, and one run for all who want the same."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smeconf.events import Report, Run, find_event
from smeconf.system import System
from tests.support.config import SECONDS, Machine
from tests.support.gate import Gate

Process = subprocess.Popen[bytes]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a target ``etc/a`` that says ``Word``."""
    machine = Machine(tmp_path)
    machine.records("Word=old\n")
    machine.fragment("etc/a", "template-begin", "")
    machine.fragment("etc/a", "10", "{{ Word }}\n")
    return machine


@pytest.fixture
def gate(machine: Machine) -> Iterator[Gate]:
    """Every run of ``try`` says that it runs in ``runs``, and waits at this gate."""
    with Gate(machine.root / "gate") as gate:
        counted = f"echo $2 >>{machine.path('runs')}; {gate.script}"
        machine.event("try", ["etc/a"], {"S50": counted})
        yield gate


def first_line(run: Process) -> str:
    """The first thing that a caller says, which is that it waits."""
    assert run.stdout is not None
    return run.stdout.readline().decode()


def end(run: Process) -> tuple[int, str]:
    """Wait for a caller; return its status, and what it said and was not read yet."""
    said, _ = run.communicate(timeout=SECONDS)
    return run.returncode, said.decode()


def waiting(machine: Machine, *words: str) -> Process:
    """Start a caller; it waits when this returns."""
    run = machine.start(*words)
    assert first_line(run).startswith("waiting for "), end(run)
    return run


def runs(machine: Machine) -> int:
    return len(machine.read("runs").splitlines())


# Waiting


def test_caller_that_waits_is_told_for_whom(machine: Machine, gate: Gate) -> None:
    first = machine.start("signal-event", "try")
    gate.await_arrival()

    second = machine.start("signal-event", "try")

    line = first_line(second)
    assert re.fullmatch(
        rf"waiting for try \(process {first.pid}, since \d\d:\d\d:\d\d\)\n", line
    )
    gate.let_pass(2)
    assert end(first) == (0, "")
    assert end(second) == (0, "")


def test_another_event_waits_too_and_so_does_expand_template(
    machine: Machine, gate: Gate
) -> None:
    machine.fragment("etc/b", "10", "x\n")
    machine.event("other", ["etc/b"])
    first = machine.start("signal-event", "try")
    gate.await_arrival()

    others = [
        waiting(machine, "signal-event", "other"),
        waiting(machine, "expand-template", "/etc/b"),
    ]

    assert not machine.path("etc/b").exists()
    gate.let_pass()
    assert [end(run)[0] for run in (first, *others)] == [0, 0, 0]
    assert machine.path("etc/b").exists()


def test_plan_waits_for_nobody(machine: Machine, gate: Gate) -> None:
    first = machine.start("signal-event", "try")
    gate.await_arrival()

    machine.run("signal-event", "try", "--plan", check=False)

    gate.let_pass()
    assert end(first) == (0, "")


# Sharing


def test_callers_that_arrive_while_one_runs_share_one_run(
    machine: Machine, gate: Gate
) -> None:
    first = machine.start("signal-event", "try")
    gate.await_arrival()
    second, third = (waiting(machine, "signal-event", "try") for _ in range(2))

    gate.let_pass(2)

    assert end(first) == (0, "")
    ended = sorted([end(second), end(third)])
    assert ended[0] == (0, "")
    status, said = ended[1]
    assert status == 0
    assert re.fullmatch(r"process (\d+) has run it for this one, too\n", said)
    assert said.split()[1] in (str(second.pid), str(third.pid))
    assert runs(machine) == 2


def test_failure_of_a_shared_run_is_given_to_all_who_share_it(
    machine: Machine, gate: Gate
) -> None:
    full = f"[ $(wc -l <{machine.path('runs')}) = 1 ] || {{ echo no room; exit 3; }}"
    machine.event("try", actions={"S60": full})
    first = machine.start("signal-event", "try")
    gate.await_arrival()
    callers = [waiting(machine, "signal-event", "try") for _ in range(2)]

    gate.let_pass(2)

    assert end(first)[0] == 0
    action = machine.path("etc/smeconf/events/try/S60")
    for status, said in map(end, callers):
        assert status == 1
        assert said.endswith(
            f"signal-event: {action}: no room\n"
            "signal-event try: failed, nothing was changed\n"
        )
    assert runs(machine) == 2


def test_caller_with_other_arguments_gets_a_run_of_its_own(
    machine: Machine, gate: Gate
) -> None:
    first = machine.start("signal-event", "try")
    gate.await_arrival()
    callers = [waiting(machine, "signal-event", "try", user) for user in ("ann", "bob")]

    gate.let_pass(3)

    assert [end(run)[0] for run in (first, *callers)] == [0, 0, 0]
    assert sorted(machine.read("runs").splitlines()) == ["", "ann", "bob"]


@pytest.mark.parametrize("variable", ["DBPATH", "ESMITH_CONFIG_DB"])
def test_caller_of_other_databases_gets_a_run_of_its_own(
    machine: Machine, gate: Gate, variable: str
) -> None:
    other = Machine(machine.root)
    file = machine.write("elsewhere/configuration", "Word=elsewhere\n")
    where = file.parent if variable == "DBPATH" else file
    other.environment[variable] = str(where)
    first = machine.start("signal-event", "try")
    gate.await_arrival()
    callers = [waiting(one, "signal-event", "try") for one in (machine, other)]

    gate.let_pass(3)

    assert [end(run)[0] for run in (first, *callers)] == [0, 0, 0]
    assert runs(machine) == 3


def test_run_that_began_before_the_caller_asked_is_not_shared(
    machine: Machine, gate: Gate
) -> None:
    """It may have read the databases already."""
    first = machine.start("signal-event", "try")
    gate.await_arrival()
    machine.run("config set Word new")

    second = waiting(machine, "signal-event", "try")
    gate.let_pass()
    gate.await_arrival()

    assert machine.read("etc/a") == "new\n"
    gate.let_pass()
    assert [end(run) for run in (first, second)] == [(0, "")] * 2


def test_run_that_ended_long_ago_is_not_shared(machine: Machine, gate: Gate) -> None:
    gate.let_pass(2)

    machine.signal("try")
    machine.signal("try")

    assert runs(machine) == 2


def test_shared_run_has_what_its_callers_added_to_the_event(
    machine: Machine, gate: Gate
) -> None:
    """Though it had begun to wait before they did."""
    machine.fragment("etc/late", "10", "x\n")
    first = machine.start("signal-event", "try")
    gate.await_arrival()
    second = Run(
        find_event("try", machine.paths), [], machine.paths, System(), Report()
    )
    machine.event("try", ["etc/late"])
    third = waiting(machine, "signal-event", "try")
    third.send_signal(signal.SIGSTOP)  # or it might come first

    gate.let_pass(3)
    assert end(first)[0] == 0
    second.apply()
    third.send_signal(signal.SIGCONT)

    assert end(third)[0] == 0
    assert machine.path("etc/late").exists()


def test_change_that_was_made_before_a_call_is_in_the_files_when_it_returns(
    machine: Machine,
) -> None:
    """Many administrators at once, each with a property of his own."""
    count, rounds = 6, 2
    machine.fragment(
        "etc/a",
        "10",
        "".join(f"P{n}={{{{ all.P{n} or '' }}}}\n" for n in range(count)),
    )
    machine.event("try", ["etc/a"])
    machine.records("all=service\n")
    missing: list[str] = []

    def administrate(number: int) -> None:
        for turn in range(rounds):
            machine.run("config", "setprop", "all", f"P{number}", f"v{turn}")
            machine.run("signal-event", "try")
            if f"P{number}=v{turn}" not in machine.read("etc/a").splitlines():
                missing.append(f"P{number}=v{turn}")

    threads = [threading.Thread(target=administrate, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert missing == []
    assert machine.read("etc/a").splitlines() == [
        f"P{number}=v{rounds - 1}" for number in range(count)
    ]


# Events within events


def test_event_that_an_action_signals_is_part_of_the_outer_one(
    machine: Machine,
) -> None:
    machine.fragment("etc/inner", "10", "{{ Word }}\n")
    machine.event("inner", ["etc/inner"], {"S50": "exec signal-event innermost"})
    machine.event("innermost", (), {"S50": f"touch {machine.path('innermost')}"})
    machine.event("try", ["etc/a"], {"S50": "exec signal-event inner"})

    result = machine.run("signal-event", "try")

    assert result.errors == ""
    assert machine.read("etc/a") == "old\n"
    assert machine.read("etc/inner").endswith("old\n")
    assert machine.path("innermost").exists()


def test_inner_event_that_fails_fails_the_outer_one(machine: Machine) -> None:
    machine.event("inner", (), {"S50": "echo no room; exit 3"})
    machine.event("try", ["etc/a"], {"S50": "exec signal-event inner"})

    result = machine.run("signal-event", "try", check=False)

    assert result.status == 1
    assert "events/inner/S50: no room" in result.errors.splitlines()[0]
    assert not machine.path("etc/a").exists()


def test_files_of_an_inner_event_stay_when_the_outer_one_fails_later(
    machine: Machine,
) -> None:
    """It is over by then, and what it did is not for others to take back."""
    machine.fragment("etc/inner", "10", "{{ Word }}\n")
    machine.event("inner", ["etc/inner"])
    actions = {"S50": "exec signal-event inner", "S60": "exit 3"}
    machine.event("try", ["etc/a"], actions)

    result = machine.run("signal-event", "try", check=False)

    assert result.status == 1
    assert not machine.path("etc/a").exists()
    assert machine.read("etc/inner").endswith("old\n")


def test_what_an_action_leaves_running_waits_for_its_turn_like_anybody(
    machine: Machine, gate: Gate
) -> None:
    said, own = machine.path("said"), Gate(machine.root / "own")
    machine.event("late", (), {"S50": "exit 0"})
    late = f"( {own.script}; signal-event late >{said} 2>&1; echo $? >>{said} ) &"
    machine.event("outer", (), {"S50": late})
    with own:
        machine.run("signal-event", "outer")
        own.await_arrival()
        first = machine.start("signal-event", "try")
        gate.await_arrival()

        own.let_pass()
        until_said(said, "waiting for try")
        gate.let_pass()

        assert end(first) == (0, "")
        until_said(said, "\n0\n")


def until_said(file: Path, text: str) -> None:
    """Wait until a file holds a text."""
    deadline = threading.Event()
    timer = threading.Timer(SECONDS, deadline.set)
    timer.start()
    try:
        while not (file.exists() and text in file.read_text()):
            assert not deadline.wait(0.02), file.read_text()
    finally:
        timer.cancel()
