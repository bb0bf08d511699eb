"""``smeconf doctor``: what is not as it should be, and what mends it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.config import FakeDaemon, Machine, Result
from tests.support.faults import FaultySystem, is_killed, signal_event

CONFIG = "var/service/qpsmtpd/config"
STOPPED = "note   qpsmtpd is not running: smeconf up, or your supervisor, starts it\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine that is set up, for tests that leave it as it was."""
    return set_up(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that is set up, for tests that harm it."""
    return set_up(tmp_path)


def set_up(root: Path) -> Machine:
    machine = Machine(root)
    machine.run("config set SystemName mail")
    machine.run("config set DomainName local.test")
    machine.run("smeconf init")
    return machine


def examined(machine: Machine, *options: str) -> Result:
    return machine.run("smeconf", "doctor", *options, check=False)


def lines(machine: Machine) -> list[str]:
    return examined(machine).output.splitlines()


def test_machine_whose_filter_serves_is_well(whole: Machine) -> None:
    with FakeDaemon(whole) as daemon:
        result = examined(whole)
    os.unlink(whole.path("run/qpsmtpd/control"))

    assert (result.status, result.output) == (0, "all is well\n")
    assert daemon.requests == ["status"]


def test_filter_that_does_not_run_is_no_fault(whole: Machine) -> None:
    result = examined(whole)

    assert (result.status, result.output) == (0, STOPPED)


def test_findings_as_json_are_for_scripts(whole: Machine) -> None:
    result = examined(whole, "--json")

    assert json.loads(result.output) == [
        {
            "is_fault": False,
            "what": "qpsmtpd is not running",
            "remedy": "smeconf up, or your supervisor, starts it",
        }
    ]


@pytest.mark.parametrize("served", ["another", ""])
def test_filter_that_serves_another_configuration_is_a_fault(
    whole: Machine, served: str
) -> None:
    with FakeDaemon(whole, lambda request: {"configuration": served}):
        result = examined(whole)
    os.unlink(whole.path("run/qpsmtpd/control"))

    assert result.status == 1
    assert result.output == (
        "wrong  qpsmtpd serves another configuration than is installed: "
        "signal-event email-update\n"
    )


def test_filter_that_does_not_answer_is_a_fault(whole: Machine) -> None:
    with FakeDaemon(whole, lambda request: b"nonsense\n"):
        result = examined(whole)
    os.unlink(whole.path("run/qpsmtpd/control"))

    assert result.status == 1
    assert result.output.startswith("wrong  qpsmtpd did not answer status: ")


def test_doctor_writes_nothing(whole: Machine) -> None:
    def everything() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in whole.root.rglob("*")
        }

    before = everything()

    examined(whole)
    examined(whole, "--json")

    assert everything() == before


def test_change_that_was_not_applied_is_noted(machine: Machine) -> None:
    machine.run("config set DomainName other.test")

    result = examined(machine)

    assert result.status == 0
    assert result.output.startswith("note   2 files would be changed by email-update: ")


def test_hand_edit_is_noted(machine: Machine) -> None:
    machine.write(f"{CONFIG}/me", "by.hand\n")

    found = lines(machine)

    assert (
        f"note   /{CONFIG}/me was edited by hand: the next event keeps that as .edited;"
        " a fragment in etc/smeconf/templates-custom would stay"
    ) in found


def test_file_that_is_gone_is_a_fault(machine: Machine) -> None:
    machine.path(f"{CONFIG}/me").unlink()

    result = examined(machine)

    assert result.status == 1
    assert f"wrong  /{CONFIG}/me is gone: signal-event email-update\n" in result.output


def test_event_that_would_fail_is_a_fault_with_its_reason(machine: Machine) -> None:
    fragment = machine.fragment(f"{CONFIG}/me", "20", "{{ qpsmtpd.Sttus }}\n")

    result = examined(machine)

    assert result.status == 1
    assert (
        f"wrong  {fragment}:1: qpsmtpd{{Sttus}} does not exist; did you mean status?"
        in result.output
    )
    assert ": signal-event email-update would fail\n" in result.output


@pytest.fixture
def cut_off(machine: Machine) -> Machine:
    """A machine whose event was killed when the first of two files had been renamed."""
    machine.run("config set DomainName other.test")
    renamed: list[int] = []

    def die(number: int, name: str) -> None:
        renamed.extend([number] * (name == "rename"))
        if len(renamed) == 3:  # before it there is the name of the event that runs
            os.kill(os.getpid(), signal.SIGKILL)

    def act(_: object) -> None:
        signal_event(machine, "email-update", FaultySystem(die))

    assert is_killed(act, at=0)
    return machine


def test_event_that_was_cut_off_is_a_fault_and_repair_mends_it(
    cut_off: Machine,
) -> None:
    names = [cut_off.read(f"{CONFIG}/{name}") for name in ("me", "smtpgreeting")]
    assert sum("other.test" in text for text in names) == 1
    found = examined(cut_off)
    assert found.status == 1
    assert (
        "wrong  an event was cut off in the middle of its install, or runs now: "
        "smeconf doctor --repair waits for it, or puts its files back\n"
    ) in found.output

    repaired = examined(cut_off, "--repair")

    assert "had been cut off: its files were put back as they were\n" in repaired.errors
    assert repaired.status == 0
    for name in ("me", "smtpgreeting"):
        assert "local.test" in cut_off.read(f"{CONFIG}/{name}")
    assert "would be changed by email-update" in repaired.output


def test_plan_says_that_an_event_was_cut_off_and_leaves_that(cut_off: Machine) -> None:
    plan = cut_off.run("signal-event email-update --plan", check=False)

    assert plan.errors == (
        "an earlier run was cut off: the next event, or smeconf doctor --repair, "
        "puts its files back first\n"
    )
    assert examined(cut_off).status == 1


@pytest.mark.parametrize("text", ["", "# nothing\n", "one.test\ntwo.test\n"])
def test_init_makes_a_certificate_whatever_a_fragment_makes_of_the_name(
    tmp_path: Path, text: str
) -> None:
    machine = Machine(tmp_path)
    machine.fragment("var/service/qpsmtpd/config/me", "10me", text)

    machine.run("smeconf init")

    assert machine.path("var/service/qpsmtpd/ssl/cert.pem").is_file()
