"""``signal-event --plan``: what would change is shown, and nothing is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.config import Machine

TARGET = "etc/one.conf"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with an event ``one`` that was run once on ``Greeting=hello``."""
    machine = Machine(tmp_path)
    machine.records("Greeting=hello\n")
    machine.fragment(TARGET, "template-begin", "")
    machine.fragment(TARGET, "10greeting", "says {{ Greeting }}\n")
    machine.event("one", [TARGET], services={"qpsmtpd": "restart"})
    machine.run("config set qpsmtpd service status enabled")
    machine.run("signal-event one")
    return machine


def everything(machine: Machine) -> dict[str, tuple[bytes, int]]:
    """Content and inode of every file below the root."""
    return {
        str(path): (path.read_bytes(), path.stat().st_ino)
        for path in machine.root.rglob("*")
        if path.is_file()
    }


def test_nothing_to_do_is_silence_and_status_0(machine: Machine) -> None:
    result = machine.run("signal-event one --plan")

    assert (result.status, result.output, result.errors) == (0, "", "")


def test_plan_shows_properties_files_and_services(machine: Machine) -> None:
    machine.run("config set Greeting goodbye")

    result = machine.run("signal-event one --plan", check=False)

    assert result.status == 2
    assert result.output == (
        "configuration Greeting: 'hello' -> 'goodbye'\n"
        "--- /etc/one.conf\n"
        "+++ /etc/one.conf\n"
        "@@ -1 +1 @@\n"
        "-says hello\n"
        "+says goodbye\n"
        "service qpsmtpd: restart\n"
    )


def test_plan_touches_nothing(machine: Machine) -> None:
    machine.run("config set Greeting goodbye")
    before = everything(machine)

    machine.run("signal-event one --plan", check=False)
    machine.run("signal-event one --plan --json", check=False)

    assert everything(machine) == before


def test_what_was_applied_is_no_longer_in_the_plan(machine: Machine) -> None:
    machine.run("config set Greeting goodbye")
    machine.run("signal-event one")
    machine.run("config set Greeting hello")

    result = machine.run("signal-event one --plan", check=False)

    assert result.output.splitlines()[0] == (
        "configuration Greeting: 'goodbye' -> 'hello'"
    )


def test_event_that_failed_applied_nothing(machine: Machine) -> None:
    machine.run("config set Greeting goodbye")
    broken = machine.fragment(TARGET, "20broken", "{{ nothing }}")
    assert machine.run("signal-event one", check=False).status == 1
    broken.unlink()

    result = machine.run("signal-event one --plan", check=False)

    assert "configuration Greeting: 'hello' -> 'goodbye'" in result.output


def test_plan_of_a_mode_names_it(machine: Machine) -> None:
    machine.path(TARGET).chmod(0o600)

    result = machine.run("signal-event one --plan", check=False)

    assert result.status == 2
    assert result.output.startswith(f"/{TARGET}: mode 0644, owner ")


def test_plan_as_json_is_for_scripts(machine: Machine) -> None:
    machine.run("config set Greeting goodbye")

    result = machine.run("signal-event one --plan --json", check=False)

    plan = json.loads(result.output)
    assert result.status == 2
    assert plan["properties"] == [
        {"database": "configuration", "key": "Greeting", "property": None}
    ]
    (file,) = plan["files"]
    assert (file["path"], file["mode"]) == (f"/{TARGET}", "0644")
    assert file["diff"].endswith("-says hello\n+says goodbye\n")
    assert plan["services"] == {"qpsmtpd": ["restart"]}


def test_plan_of_what_would_fail_is_the_fault_and_status_1(machine: Machine) -> None:
    fragment = machine.fragment(TARGET, "20broken", "{{ nothing }}")

    result = machine.run("signal-event one --plan", check=False)

    assert result.status == 1
    assert result.errors == (f"signal-event: {fragment}:1: 'nothing' is undefined\n")


def test_secret_in_a_file_is_hidden_in_the_plan_and_the_diff(machine: Machine) -> None:
    """Neither the new one nor the old, nor what a template has made of them."""
    machine.run("config set relay service Passwd s3cret-old")
    machine.fragment(TARGET, "20secret", "login {{ relay.Passwd | upper }}\n")
    machine.run("signal-event one")
    machine.run("config setprop relay Passwd s3cret-new")

    plan = machine.run("signal-event one --plan", check=False)
    diff = machine.run(f"expand-template --diff /{TARGET}")

    for shown in (plan.output, diff.output):
        assert f"/{TARGET}: differs, and holds a secret: it is not shown\n" in shown
        assert "s3cret" not in shown.lower()
    assert "configuration relay Passwd: a secret was changed" in plan.output


def test_diff_of_one_template_writes_nothing(machine: Machine) -> None:
    machine.run("config set Greeting goodbye")
    before = everything(machine)

    result = machine.run(f"expand-template --diff /{TARGET}")

    assert "-says hello\n+says goodbye\n" in result.output
    assert everything(machine) == before
