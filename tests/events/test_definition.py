"""What an event is: a directory of ours, and what the site adds to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smeconf.events import EventError, UnknownEvent, find_event
from tests.support.config import FakeDaemon, Machine

PLACE = "etc/smeconf/events"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a target ``etc/a`` that says ``Word``."""
    machine = Machine(tmp_path)
    machine.records("Word=old\nqpsmtpd=service|status|enabled\n")
    machine.fragment("etc/a", "template-begin", "")
    machine.fragment("etc/a", "10", "{{ Word }}\n")
    return machine


def names(machine: Machine, event: str) -> list[str]:
    """The names of an event's steps, in order."""
    return list(find_event(event, machine.paths).steps)


# The site's additions


def test_site_adds_to_a_shipped_event(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.event(
        "email-update",
        ["etc/mine"],
        {"S10qpsmtpd-prepare": "exit 0", "S20mine": "exit 0", "notes": ""},
        {"qpsmtpd": "sigusr1", "dovecot": "restart"},
    )

    event = find_event("email-update", machine.paths)

    assert "etc/mine" in event.targets
    assert "var/service/qpsmtpd/config/dnsbl_zones" in event.targets
    steps = names(machine, "email-update")
    assert steps == sorted(steps)
    assert steps.count("S10qpsmtpd-prepare") == 1
    assert "S20mine" in steps
    assert "notes" not in steps
    own = machine.path(f"{PLACE}/email-update/S10qpsmtpd-prepare")
    assert event.steps["S10qpsmtpd-prepare"] == str(own)
    assert event.services["qpsmtpd"] == ("sigusr1",)
    assert event.services["dovecot"] == ("restart",)


def test_link_to_dev_null_switches_an_action_off(machine: Machine) -> None:
    machine.event("email-update")
    before = names(machine, "email-update")
    off = machine.path(f"{PLACE}/email-update/S10qpsmtpd-prepare")

    off.symlink_to("/dev/null")

    before.remove(off.name)
    assert names(machine, "email-update") == before


@pytest.mark.parametrize("name", ["none", "", "actions", "../events", ".", "try/x"])
def test_event_without_a_directory_is_unknown(machine: Machine, name: str) -> None:
    machine.path(f"{PLACE}/actions").mkdir(parents=True)
    machine.event("try/x")

    with pytest.raises(UnknownEvent):
        find_event(name, machine.paths)


@pytest.mark.parametrize("words", [["none"], [], ["--quux"]])
def test_unknown_event_and_wrong_usage_are_255(
    machine: Machine, words: list[str]
) -> None:
    result = machine.run("signal-event", *words, check=False)

    assert (result.status, result.output) == (255, "")
    assert result.errors.startswith(
        "signal-event: none: there is no such event\n" if words == ["none"] else "usage"
    )


def test_misspelt_event_is_told_the_nearest(machine: Machine) -> None:
    with pytest.raises(UnknownEvent, match="did you mean email-update"):
        find_event("email-updat", machine.paths)


# Shared actions


def share(machine: Machine, name: str, script: str) -> Path:
    return machine.write(f"{PLACE}/actions/{name}", f"#!/bin/sh\n{script}\n", 0o755)


@pytest.mark.parametrize("kind", ["empty file", "link of the site", "link of SME"])
def test_empty_file_or_dangling_link_stands_for_a_shared_action(
    machine: Machine, kind: str
) -> None:
    log = machine.path("log")
    shared = share(machine, "foo", f'echo "${{0##*/}} $*" >>{log}')
    machine.event("try")
    entry = machine.path(f"{PLACE}/try/S20foo")
    if kind == "empty file":
        entry.touch()
    else:
        # The second leads nowhere: the site's actions are somewhere else.
        far = "/etc/e-smith/events/actions/foo"
        entry.symlink_to("../actions/foo" if kind == "link of the site" else far)

    machine.signal("try", "ann")

    assert log.read_text() == (
        "S20foo try ann\n" if kind == "link of the site" else "foo try ann\n"
    )
    assert shared.exists()


def test_dangling_link_of_the_site_finds_a_shipped_action(machine: Machine) -> None:
    """The site's events have no directory ``actions`` at all."""
    machine.event("try")
    entry = machine.path(f"{PLACE}/try/S20qpsmtpd-prepare")
    entry.symlink_to("../actions/qpsmtpd-prepare")
    (step,) = find_event("try", machine.paths).steps.values()

    assert step.endswith("/events/actions/qpsmtpd-prepare")
    assert os.access(step, os.X_OK)


def test_shared_action_of_the_site_comes_before_ours(machine: Machine) -> None:
    machine.event("try")
    machine.path(f"{PLACE}/try/S20qpsmtpd-prepare").touch()
    (shipped,) = find_event("try", machine.paths).steps.values()
    own = share(machine, "qpsmtpd-prepare", "exit 0")

    (step,) = find_event("try", machine.paths).steps.values()

    assert shipped != step == str(own)


def test_action_that_stands_for_nothing_is_skipped_and_said(machine: Machine) -> None:
    machine.event("try")
    entry = machine.path(f"{PLACE}/try/S20foo")
    entry.symlink_to("../actions/foo")

    assert machine.signal("try") == [f"{entry}: is not executable, skipped"]


# The order


def test_steps_stand_in_byte_order_around_expansion_and_services(
    machine: Machine,
) -> None:
    actions = ("S04a", "S05a", "S05z", "S5", "S90a", "S90z", "S9", "S10b", "S10C")
    machine.event("try", ["etc/a"], dict.fromkeys(actions, ""), {"qpsmtpd": "reload"})

    assert names(machine, "try") == [
        *("S04a", "S05a", "S05generic_template_expand", "S05z", "S10C", "S10b", "S5"),
        *("S9", "S90a", "S90adjust-services", "S90z"),
    ]


def test_what_an_action_before_the_expansion_changes_is_in_the_files(
    machine: Machine,
) -> None:
    machine.event("try", ["etc/a"], {"S03": "exec config set Word changed"})

    machine.signal("try")

    assert machine.read("etc/a") == "changed\n"


def test_what_an_action_behind_the_expansion_changes_is_not_in_them(
    machine: Machine,
) -> None:
    machine.event("try", ["etc/a"], {"S50": "exec config set Word changed"})

    machine.signal("try")

    assert machine.read("etc/a") == "old\n"


def test_action_behind_the_services_runs_when_they_have_been_told(
    machine: Machine,
) -> None:
    ran = machine.path("ran")
    actions = {name: f"echo {name} >>{ran}" for name in ("S89", "S95")}
    machine.event("try", ["etc/a"], actions, {"qpsmtpd": "reload"})
    when_told: list[str] = []

    def answer(request: str) -> dict[str, object]:
        when_told.append(ran.read_text())
        return {}

    with FakeDaemon(machine, answer) as daemon:
        machine.signal("try")

    assert daemon.requests == ["reload"]
    assert when_told == ["S89\n"]
    assert ran.read_text() == "S89\nS95\n"


# Parts that are missing


def test_event_without_targets_runs_actions_and_tells_services(
    machine: Machine,
) -> None:
    ran = machine.path("ran")
    machine.event("try", (), {"S50": f"touch {ran}"}, {"qpsmtpd": "reload"})

    with FakeDaemon(machine) as daemon:
        machine.signal("try")

    assert ran.exists()
    assert daemon.requests == ["reload"]
    assert names(machine, "try") == ["S50", "S90adjust-services"]


def test_event_without_services_tells_nobody(machine: Machine) -> None:
    machine.event("try", ["etc/a"])

    with FakeDaemon(machine) as daemon:
        machine.signal("try")

    assert daemon.requests == []
    assert machine.read("etc/a") == "old\n"


def test_event_of_nothing_succeeds(machine: Machine) -> None:
    machine.event("try")

    assert machine.signal("try") == []
    assert names(machine, "try") == []


# Services


def test_action_of_a_service_may_be_the_text_of_a_symlink(machine: Machine) -> None:
    machine.event("try")
    folder = machine.path(f"{PLACE}/try/services2adjust")
    folder.mkdir()
    (folder / "qpsmtpd").symlink_to("reload")

    assert find_event("try", machine.paths).services == {"qpsmtpd": ("reload",)}


def test_service_is_told_an_action_a_line(machine: Machine) -> None:
    lines = "# first of all\nsigusr1\n\nenable -now  # at boot, too"
    machine.event("try", services={"qpsmtpd": lines})

    services = find_event("try", machine.paths).services

    assert services == {"qpsmtpd": ("sigusr1", "enable -now")}


@pytest.mark.parametrize(
    ("services", "reason"),
    [
        ({"httpd": "restart"}, "httpd: configuration has no such service"),
        ({"Word": "restart"}, "Word: configuration has no such service"),
        ({"qpsmtpd": "relaod"}, "qpsmtpd: no action relaod; did you mean reload?"),
        ({"qpsmtpd": "reload\npause"}, "qpsmtpd: action pause would leave mail"),
    ],
)
def test_service_that_cannot_be_told_is_refused_before_anything_is_installed(
    machine: Machine, services: dict[str, str], reason: str
) -> None:
    ran = machine.path("ran")
    machine.event("before", ["etc/a"])
    machine.signal("before")
    machine.records("Word=new\nqpsmtpd=service|status|enabled\n")
    before = machine.facts("etc/a")
    machine.event("try", ["etc/a"], {"S50": f"touch {ran}"}, services)

    with FakeDaemon(machine) as daemon, pytest.raises(EventError) as caught:
        machine.signal("try")

    assert str(caught.value).startswith(reason)
    assert machine.facts("etc/a") == before
    assert not ran.exists()
    assert daemon.requests == []
