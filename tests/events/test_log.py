"""What is kept of an event: SME's lines, and objects for programs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from smeconf.events import EventError
from tests.support.config import FakeDaemon, Machine

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"
TIMES = r"\|Start\|\d+ \d+\|End\|\d+ \d+\|Elapsed\|\d+\.\d{6}"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a target ``etc/a`` of the event ``try``."""
    machine = Machine(tmp_path)
    machine.records("Word=old\nqpsmtpd=service|status|enabled\n")
    machine.fragment("etc/a", "10", "{{ Word }}\n")
    machine.event("try", ["etc/a"])
    return machine


def lines(machine: Machine) -> list[str]:
    """The lines of the log, without time and process."""
    found = machine.read("var/log/smeconf/events.log").splitlines()
    heads = [re.match(rf"{STAMP} esmith::event\[\d+\]: ", line) for line in found]
    assert all(heads), found
    return [line[head.end() :] for line, head in zip(found, heads, strict=True) if head]


def objects(machine: Machine) -> list[dict[str, Any]]:
    text = machine.read("var/log/smeconf/events.json")
    return [json.loads(line) for line in text.splitlines()]


def path(machine: Machine, action: str) -> str:
    return str(machine.path(f"etc/smeconf/events/try/{action}"))


def test_log_has_the_lines_of_sme(machine: Machine) -> None:
    machine.event("try", actions={"S50": "echo hello; echo world >&2"})

    machine.signal("try", "ann", "two words")

    assert lines(machine)[:2] == [
        "Processing event: try ann two words",
        "Running event handler: S05generic_template_expand",
    ]
    expanded, running, *said, ran = lines(machine)[2:]
    assert re.fullmatch(
        rf"action\|Event\|try\|Action\|S05generic_template_expand{TIMES}", expanded
    )
    assert running == f"Running event handler: {path(machine, 'S50')}"
    assert said == ["hello", "world"]
    assert re.fullmatch(rf"action\|Event\|try\|Action\|S50{TIMES}", ran)


def test_times_of_an_action_are_those_that_it_took(machine: Machine) -> None:
    machine.event("try", actions={"S50": "sleep 0.2"})

    machine.signal("try")

    fields = lines(machine)[-1].split("|")
    began, ended = (
        int(seconds) + int(microseconds) / 1e6
        for seconds, microseconds in (fields[n].split() for n in (6, 8))
    )
    assert 0.2 <= ended - began < 10
    assert float(fields[10]) == pytest.approx(ended - began, abs=0.001)


def test_action_that_fails_has_its_status_in_the_log(machine: Machine) -> None:
    machine.event("try", actions={"S50": "echo no room; exit 3", "S60": "exit 0"})

    with pytest.raises(EventError):
        machine.signal("try")

    *_, said, ran, why = lines(machine)
    assert said == "no room"
    assert re.fullmatch(rf"action\|Event\|try\|Action\|S50{TIMES}\|Status\|1", ran)
    assert why == f"{path(machine, 'S50')}: no room"


def test_objects_tell_each_step_and_its_time(machine: Machine) -> None:
    check = machine.write("check", "#!/bin/sh\nexit 0\n", 0o755)
    machine.fragment("etc/a", "metadata.toml", f'check = ["{check}", "{{}}"]')
    machine.event("try", actions={"S50": "exit 0"}, services={"qpsmtpd": "reload"})

    with FakeDaemon(machine):
        machine.signal("try", "ann")

    found = objects(machine)
    assert [one["step"] for one in found] == [
        *("begin", "check", "install", "action", "run", "action", "service", "action"),
        "end",
    ]
    assert {one["event"] for one in found} == {"try"}
    assert len({one["run"] for one in found}) == 1
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", one["time"])
        for one in found
    )
    assert all(one["seconds"] >= 0 for one in found[1:])
    by_step = {one["step"]: one for one in found}
    assert by_step["begin"]["arguments"] == ["ann"]
    assert by_step["check"]["place"] == "etc/a"
    assert by_step["install"]["targets"] == ["etc/a"]
    assert by_step["service"]["service"] == "qpsmtpd"
    assert (by_step["end"]["status"], by_step["end"]["fault"]) == (0, "")


def test_objects_of_a_failure_say_where_and_why(machine: Machine) -> None:
    machine.event("try", actions={"S50": "exit 3"})

    with pytest.raises(EventError):
        machine.signal("try")

    action, end = objects(machine)[-2:]
    assert (action["step"], action["action"], action["status"]) == ("action", "S50", 1)
    assert (end["step"], end["status"]) == ("end", 1)
    assert end["fault"] == f"{path(machine, 'S50')}: exit status 3"


def test_two_runs_are_told_apart(machine: Machine) -> None:
    machine.run("signal-event", "try")
    machine.run("signal-event", "try")

    found = objects(machine)

    assert len({one["run"] for one in found}) == 2


def test_notice_is_in_both_logs(machine: Machine) -> None:
    machine.signal("try")
    machine.write("etc/a", "by hand\n")

    machine.signal("try")

    notice = "/etc/a was edited by hand: kept beside, as a.edited"
    assert notice in lines(machine)
    assert notice in [one.get("text") for one in objects(machine)]


def test_output_of_an_action_can_neither_forge_a_line_nor_move_a_terminal(
    machine: Machine,
) -> None:
    forged = "2026-01-01T00:00:00+0000 esmith::event[1]: Processing event: forged"
    machine.event(
        "try",
        actions={"S50": rf"printf 'a\033[2Jb\rc\x85{forged}\n\303\244\tz\n\377\n'"},
    )

    machine.signal("try")

    log = machine.read("var/log/smeconf/events.log")
    assert "\x1b" not in log
    assert "\r" not in log
    assert f"{forged}" not in [line[: len(forged)] for line in log.splitlines()]
    assert r"a\x1b[2Jb" in log
    assert "ä\tz" in lines(machine)


def test_argument_with_a_line_end_is_one_line(machine: Machine) -> None:
    machine.signal("try", "ann\nProcessing event: forged")

    assert lines(machine)[0] == r"Processing event: try ann\x0aProcessing event: forged"


@pytest.mark.parametrize("place", ["var/log/smeconf", "var/log/smeconf/events.log"])
def test_log_that_cannot_be_written_fails_nothing(machine: Machine, place: str) -> None:
    if place.endswith(".log"):
        machine.path(place).mkdir(parents=True)
    else:
        machine.write(place, "a file where a directory should be")

    result = machine.run("signal-event", "try")

    assert result.errors == ""
    assert machine.read("etc/a").endswith("old\n")


def test_log_is_not_written_through_a_link(machine: Machine) -> None:
    """Which somebody may have put there who owns the directory."""
    other = machine.write("other", "kept\n")
    machine.path("var/log/smeconf").mkdir(parents=True)
    machine.path("var/log/smeconf/events.log").symlink_to(other)

    machine.signal("try")

    assert other.read_text() == "kept\n"


def test_plan_is_not_logged(machine: Machine) -> None:
    machine.run("signal-event try --plan", check=False)

    assert not machine.path("var/log/smeconf").exists()


# Secrets

SECRET = "s3cret-one"


@pytest.fixture
def keeper(machine: Machine) -> Machine:
    """A machine with a secret, which stands in etc/a."""
    machine.run("config", "set", "relay", "service", "Passwd", SECRET)
    machine.fragment("etc/a", "20", "login {{ relay.Passwd }}\n")
    return machine


def use_it_wrong(machine: Machine) -> None:
    machine.fragment("etc/a", "30", "{{ relay.Passwd | int + [] }}\n")


def print_a_control_character(machine: Machine) -> None:
    machine.run("config", "setprop", "relay", "Passwd", f"{SECRET}\x1btwo")


def look_up_by_it(machine: Machine) -> None:
    machine.fragment("etc/a", "30", "{{ {}[relay.Passwd] }}\n")


def check_it(machine: Machine) -> None:
    check = machine.write("check", '#!/bin/sh\ncat "$1"; exit 1\n', 0o755)
    machine.fragment("etc/a", "metadata.toml", f'check = ["{check}", "{{}}"]')


@pytest.mark.parametrize(
    "harm", [use_it_wrong, print_a_control_character, look_up_by_it, check_it]
)
def test_no_fault_shows_a_secret(keeper: Machine, harm: Any) -> None:
    harm(keeper)

    result = keeper.run("signal-event", "try", check=False)
    plan = keeper.run("signal-event", "try", "--plan", check=False)

    assert (result.status, plan.status) == (1, 1)
    for shown in (result.errors, plan.errors, plan.output):
        assert SECRET not in shown
    for log in ("events.log", "events.json"):
        assert SECRET not in keeper.read(f"var/log/smeconf/{log}")
    assert SECRET not in keeper.read("var/lib/smeconf/runs/try")


def test_no_diff_shows_a_secret_and_no_state_keeps_it(keeper: Machine) -> None:
    plan = keeper.run("signal-event", "try", "--plan", check=False)
    diff = keeper.run("expand-template", "--diff", "/etc/a", check=False)
    keeper.run("signal-event", "try")

    assert SECRET not in diff.output
    assert plan.output.startswith("/etc/a: ")
    assert SECRET not in plan.output
    assert SECRET in keeper.read("etc/a")
    for folder in ("var/log/smeconf", "var/lib/smeconf"):
        for file in keeper.path(folder).rglob("*"):
            assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
