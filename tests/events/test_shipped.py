"""The events that are shipped: those of SME, as far as they drive mail."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.events import event_names, find_event
from smeconf.paths import Paths
from tests.support.config import FakeDaemon, Machine

CONFIG = "var/service/qpsmtpd/config"
PATHS = Paths("/nowhere")
NAMES = (
    *("console-save", "email-update", "ip-change", "post-upgrade"),
    *("remoteaccess-update", "ssl-update"),
    *(f"domain-{verb}" for verb in ("create", "delete", "modify")),
    *(f"network-{verb}" for verb in ("create", "delete", "modify")),
    *(f"user-{verb}" for verb in ("create", "delete", "modify")),
)


def test_events_are_known_by_the_names_of_sme() -> None:
    assert event_names(PATHS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_event_tells_the_filter_of_what_it_changes(name: str) -> None:
    event = find_event(name, PATHS)

    assert ("qpsmtpd" in event.services) is (name != "post-upgrade")
    whole = set(find_event("email-update", PATHS).targets)
    assert set(event.targets) <= whole
    if name in ("console-save", "post-upgrade"):
        assert set(event.targets) == whole


@pytest.mark.parametrize("name", NAMES)
def test_event_runs_on_a_new_machine(tmp_path: Path, name: str) -> None:
    machine = Machine(tmp_path)
    machine.run("smeconf init")

    with FakeDaemon(machine) as daemon:
        result = machine.run("signal-event", name, "an-argument")

    assert daemon.requests == ([] if name == "post-upgrade" else ["reload"])
    assert "failed" not in result.errors


@pytest.mark.parametrize(
    ("event", "change", "target", "line"),
    [
        (
            "domain-create",
            "db domains set new.test domain",
            "rcpthosts",
            "new.test",
        ),
        (
            "network-create",
            "db networks set 10.5.0.0 network Mask 255.255.0.0 "
            "RelayRequiresAuth disabled",
            "relayclients",
            "10.5.",
        ),
        ("ip-change", "config set SystemName other", "me", "other.local.test"),
        (
            "remoteaccess-update",
            "config setprop qpsmtpd TCPPort 2526",
            "listen",
            "2526",
        ),
    ],
)
def test_change_is_in_the_file_when_its_event_has_run(
    tmp_path: Path, event: str, change: str, target: str, line: str
) -> None:
    machine = Machine(tmp_path)
    machine.records("DomainName=local.test\nSystemName=mail\n")
    machine.run("smeconf init")
    machine.run(change)

    machine.run("signal-event", event, "argument")

    assert line in machine.read(f"{CONFIG}/{target}").splitlines()


def test_upgrade_brings_new_properties_before_it_expands(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.records("qpsmtpd=service|DNSBL|enabled|RBLList|a.test:b.test\n")

    machine.run("signal-event post-upgrade")

    assert machine.run("config getprop qpsmtpd RBLList").output == "a.test,b.test\n"
    zones = machine.read(f"{CONFIG}/dnsbl_zones").splitlines()
    assert zones[-2:] == ["a.test", "b.test"]
