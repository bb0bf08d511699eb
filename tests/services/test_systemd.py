"""Services that systemd makes run: what it is told, and what is made of its answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smeconf.services import ServiceError, find_service, process, systemd
from smeconf.services.own import OwnDaemon
from smeconf.services.service import Status
from smeconf.services.systemd import FilterUnit, Unit
from smeconf.services.unit import unit_text
from tests.support.config import FakeDaemon, Machine
from tests.support.smtp import free_port, write_directory
from tests.support.systemctl import FakeSystemctl

CONFIG = "var/service/qpsmtpd/config"
WAITS = "is not running: what was installed waits for it"
FAILED = {"Result": "exit-code", "ExecMainStatus": "89"}
JOURNAL = """\
Nov 24 18:10:00 mail systemd[1]: Starting dovecot.service...
Nov 24 18:10:01 mail dovecot[17]: doveconf: Fatal: line 3: Unknown setting: quux
Nov 24 18:10:01 mail systemd[1]: dovecot.service: Failed with result 'exit-code'.
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that was booted with systemd, and knows two units."""
    machine = Machine(tmp_path / "root")
    machine.path("run/systemd/system").mkdir(parents=True)
    machine.write("usr/lib/systemd/system/dovecot.service", "[Service]\n")
    machine.write("etc/systemd/system/qpsmtpd.service", "[Service]\n")
    return machine


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemctl:
    fake = FakeSystemctl(tmp_path / "fake")
    fake.unit("dovecot", "active")
    fake.unit("qpsmtpd", "active")
    monkeypatch.setenv("PATH", str(fake.bin))
    return fake


def adjust(machine: Machine, name: str, *actions: str, is_enabled: bool = True) -> str:
    return find_service(name, machine.paths).adjust(actions, is_enabled)


def failure(machine: Machine, name: str, *actions: str) -> str:
    """Return why an action failed: one line."""
    with pytest.raises(ServiceError) as caught:
        adjust(machine, name, *actions)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Which maker


@pytest.mark.parametrize("place", ["etc", "run", "usr/local/lib", "usr/lib", "lib"])
@pytest.mark.usefixtures("fake")
def test_service_with_a_unit_is_systemds(machine: Machine, place: str) -> None:
    machine.write(f"{place}/systemd/system/sshd.service", "[Service]\n")

    assert isinstance(find_service("sshd", machine.paths), Unit)


@pytest.mark.usefixtures("fake")
def test_filter_with_a_unit_is_systemds_too(machine: Machine) -> None:
    assert isinstance(find_service("qpsmtpd", machine.paths), FilterUnit)
    machine.path("etc/systemd/system/qpsmtpd.service").unlink()

    maker = find_service("qpsmtpd", machine.paths)

    assert type(maker) is OwnDaemon


@pytest.mark.usefixtures("fake")
def test_root_that_systemd_did_not_boot_never_acts_on_the_machine(
    machine: Machine,
) -> None:
    machine.path("run/systemd/system").rmdir()

    assert type(find_service("qpsmtpd", machine.paths)) is OwnDaemon
    with pytest.raises(
        ServiceError, match=r"^dovecot: no way .*: systemd does not run"
    ):
        find_service("dovecot", machine.paths)


def test_machine_without_systemctl_is_not_systemds(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert type(find_service("qpsmtpd", machine.paths)) is OwnDaemon


@pytest.mark.parametrize("name", ["httpd", "", "-H", "../dovecot", "a b", ".x", "\n"])
@pytest.mark.usefixtures("fake")
def test_service_without_a_unit_cannot_be_steered(machine: Machine, name: str) -> None:
    with pytest.raises(ServiceError, match="there is no unit"):
        find_service(name, machine.paths)


# Any service


@pytest.mark.parametrize(
    ("actions", "calls"),
    [
        (["restart"], ["restart"]),
        (["sighup"], ["start", "reload-or-restart"]),
        (["sigwinch"], ["start", "kill --signal=SIGWINCH"]),
        (["enable -now"], ["enable --now"]),
        (["stop"], ["stop"]),
    ],
)
def test_words_are_calls_of_systemctl(
    machine: Machine, fake: FakeSystemctl, actions: list[str], calls: list[str]
) -> None:
    assert adjust(machine, "dovecot", *actions) == ""

    assert fake.calls == [f"{call} dovecot.service" for call in calls]


def test_nobody_is_asked_for_a_password(machine: Machine, fake: FakeSystemctl) -> None:
    adjust(machine, "dovecot", "restart")
    find_service("dovecot", machine.paths).status()

    assert all(line.startswith("--no-ask-password ") for line in fake.words)
    assert all("--no-pager" in line for line in fake.words if " show " in line)


def test_unknown_word_is_refused_before_anything_is_done(
    machine: Machine, fake: FakeSystemctl
) -> None:
    reason = failure(machine, "dovecot", "restart", "explode")

    assert reason == "dovecot: no action explode"
    assert fake.words == []


@pytest.mark.parametrize(
    ("state", "said"),
    [("active", "dovecot is disabled: it stops"), ("inactive", ""), ("failed", "")],
)
def test_service_that_is_disabled_is_stopped(
    machine: Machine, fake: FakeSystemctl, state: str, said: str
) -> None:
    fake.unit("dovecot", state)

    assert adjust(machine, "dovecot", "restart", is_enabled=False) == said

    assert fake.calls == ["stop dovecot.service"]


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_service_that_does_not_run_is_not_told_to_reload(
    machine: Machine, fake: FakeSystemctl, state: str
) -> None:
    fake.unit("dovecot", state)

    assert adjust(machine, "dovecot", "reload") == f"dovecot {WAITS}"

    assert fake.calls == []


def test_service_that_takes_its_time_is_waited_for(
    machine: Machine, fake: FakeSystemctl
) -> None:
    fake.unit("dovecot", "inactive", "activating", "activating", "active")

    assert adjust(machine, "dovecot", "restart") == ""


def test_service_that_failed_before_may_be_started_again(
    machine: Machine, fake: FakeSystemctl
) -> None:
    """One that failed too often in a while would else be refused its start."""
    fake.unit("dovecot", "failed", "active")

    assert adjust(machine, "dovecot", "restart") == ""

    assert fake.calls == ["reset-failed dovecot.service", "restart dovecot.service"]


def test_service_that_fails_says_why(machine: Machine, fake: FakeSystemctl) -> None:
    fake.unit("dovecot", "active", "activating", "failed", journal=JOURNAL, **FAILED)

    reason = failure(machine, "dovecot", "restart")

    assert reason == (
        "dovecot does not run: failed, exit-code, exit status 89, "
        "doveconf: Fatal: line 3: Unknown setting: quux"
    )


def test_service_that_falls_over_and_over_is_not_waited_for(
    machine: Machine, fake: FakeSystemctl
) -> None:
    fake.unit("dovecot", "activating", SubState="auto-restart", **FAILED)

    reason = failure(machine, "dovecot", "restart")

    assert reason == "dovecot does not run: activating, exit-code, exit status 89"
    assert len(fake.words) < 6


def test_service_that_stays_under_way_is_not_waited_for_for_ever(
    machine: Machine, fake: FakeSystemctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "START_SECONDS", 0.2)
    fake.unit("dovecot", "activating")

    assert failure(machine, "dovecot", "start") == "dovecot does not run: activating"


def test_service_that_is_over_at_once_may_be_of_that_kind(
    machine: Machine, fake: FakeSystemctl
) -> None:
    fake.unit("dovecot", "inactive", Type="oneshot")
    assert adjust(machine, "dovecot", "restart") == ""

    fake.unit("dovecot", "inactive", Type="simple")
    assert failure(machine, "dovecot", "restart") == "dovecot does not run: inactive"


def test_call_that_fails_gives_the_reason_of_the_service(
    machine: Machine, fake: FakeSystemctl
) -> None:
    fake.unit("dovecot", "active", "failed", journal=JOURNAL, **FAILED)
    fake.on("dovecot", "restart", "echo 'Job failed.' >&2; exit 1")

    reason = failure(machine, "dovecot", "restart")

    assert reason == (
        "dovecot: systemctl restart failed: exit-code, exit status 89, "
        "doveconf: Fatal: line 3: Unknown setting: quux"
    )


def test_call_that_fails_without_a_fault_of_the_service_gives_what_was_said(
    machine: Machine, fake: FakeSystemctl
) -> None:
    script = "echo 'Unit dovecot.service is masked.' >&2; exit 1"
    fake.on("dovecot", "restart", script)

    reason = failure(machine, "dovecot", "restart")

    assert reason == (
        "dovecot: systemctl restart failed: Unit dovecot.service is masked."
    )


def test_call_that_hangs_is_given_up(
    machine: Machine, fake: FakeSystemctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though what it left behind still holds its output."""
    monkeypatch.setattr(systemd, "CALL_SECONDS", 0.5)
    fake.on("dovecot", "restart", "sleep 5")

    reason = failure(machine, "dovecot", "restart")

    assert reason == "dovecot: systemctl restart did not end within 0.5 s"


def test_status_is_systemds(machine: Machine, fake: FakeSystemctl) -> None:
    fake.unit("dovecot", "active", SubState="running", MainPID="17")
    service = find_service("dovecot", machine.paths)

    assert service.status() == Status(True, 17, "active (running)")

    fake.unit("dovecot", "failed", SubState="failed", MainPID="0")
    assert service.status() == Status(False, None, "failed (failed)")


# The filter as a unit


@pytest.mark.parametrize("action", ["restart", "reload", "sigusr1", "start"])
def test_filter_is_reloaded_by_its_socket(
    machine: Machine, fake: FakeSystemctl, action: str
) -> None:
    with FakeDaemon(machine) as daemon:
        assert adjust(machine, "qpsmtpd", action) == ""

    assert daemon.requests[-1] == "reload"
    assert daemon.heard == [b"QUIT\r\n"]
    assert fake.calls == []


def test_filter_that_is_stopped_stays_so(machine: Machine, fake: FakeSystemctl) -> None:
    fake.unit("qpsmtpd", "inactive")

    assert adjust(machine, "qpsmtpd", "restart") == f"qpsmtpd {WAITS}"

    assert fake.calls == []


@pytest.mark.parametrize(
    ("action", "is_enabled", "said"),
    [
        ("stop", True, "qpsmtpd was told to stop: it stops"),
        ("restart", False, "qpsmtpd is disabled: it stops"),
    ],
)
def test_filter_is_stopped_by_systemd(
    machine: Machine, fake: FakeSystemctl, action: str, is_enabled: bool, said: str
) -> None:
    with FakeDaemon(machine) as daemon:
        assert adjust(machine, "qpsmtpd", action, is_enabled=is_enabled) == said

    assert daemon.requests == []
    assert fake.calls == ["stop qpsmtpd.service"]


def test_filter_that_was_started_by_hand_is_stopped_by_its_socket(
    machine: Machine, fake: FakeSystemctl
) -> None:
    fake.unit("qpsmtpd", "inactive")

    with FakeDaemon(machine) as daemon:
        adjust(machine, "qpsmtpd", "stop")

    assert daemon.requests == ["stop"]
    assert fake.calls == []


@pytest.mark.parametrize(
    ("action", "call"), [("enable", "enable"), ("disable", "disable")]
)
def test_filter_is_enabled_by_systemd(
    machine: Machine, fake: FakeSystemctl, action: str, call: str
) -> None:
    assert adjust(machine, "qpsmtpd", action) == ""

    assert fake.calls == [f"{call} qpsmtpd.service"]


@pytest.mark.parametrize("state", [["failed"], ["active", "failed"]])
def test_filter_that_does_not_start_says_why(
    machine: Machine, fake: FakeSystemctl, state: list[str]
) -> None:
    journal = "Nov 24 18:10:01 mail qpsmtpd[17]: smeconf-smtpd: plugins:3: no quux\n"
    fake.unit("qpsmtpd", *state, journal=journal, Result="exit-code")

    reason = failure(machine, "qpsmtpd", "start")

    assert reason == (
        "qpsmtpd does not start: exit-code, smeconf-smtpd: plugins:3: no quux"
    )
    assert fake.calls[-1] == "start qpsmtpd.service"


def test_filter_that_never_serves_is_not_waited_for_for_ever(
    machine: Machine, fake: FakeSystemctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "START_SECONDS", 0.2)

    reason = failure(machine, "qpsmtpd", "start")

    assert reason == "qpsmtpd did not serve within 0.2 s"


def test_status_of_the_filter_is_its_own_or_systemds(
    machine: Machine, fake: FakeSystemctl
) -> None:
    fake.unit("qpsmtpd", "failed", SubState="failed")
    service = find_service("qpsmtpd", machine.paths)

    assert service.status() == Status(False, None, "failed (failed)")
    with FakeDaemon(machine, lambda _: {"configuration": "one"}):
        assert service.status().configuration == "one"


@pytest.fixture
def startable(machine: Machine, fake: FakeSystemctl) -> Iterator[None]:
    """Have systemctl start a real filter; it ends with the test."""
    files = {
        "me": "mx.test",
        "listen": f"127.0.0.1@{free_port()}",
        "workers": "1",
        "plugins": "rcpt_ok\nqueue/null",
    }
    machine.path(CONFIG).mkdir(parents=True)
    write_directory(machine.path(CONFIG), files)
    program = Path(sys.executable).parent / "smeconf-smtpd"
    fake.on(
        "qpsmtpd",
        "start",
        f"SMECONF_ROOT={machine.root} {program} >log 2>&1 </dev/null &",
    )
    yield
    pid = process.find_master("qpsmtpd", machine.paths)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        assert process.has_ended(pid)


@pytest.mark.usefixtures("startable")
@pytest.mark.parametrize("action", ["start", "enable -now"])
def test_filter_is_started_by_systemd_and_proven(
    machine: Machine, fake: FakeSystemctl, action: str
) -> None:
    fake.unit("qpsmtpd", "inactive", "activating", "active")

    assert adjust(machine, "qpsmtpd", action) == "qpsmtpd is started"

    assert fake.calls[-1] == "start qpsmtpd.service"
    assert find_service("qpsmtpd", machine.paths).status().is_running


# The real systemd.  Defined only where it runs and may be told: in a container there is
# nothing that this could show, and what is not collected is not reported as skipped.

if os.path.isdir("/run/systemd/system") and os.geteuid() == 0:

    @pytest.fixture
    def real_unit(tmp_path: Path) -> Iterator[Machine]:
        """A machine whose filter is a unit of this one, under a name of its own."""
        name = f"smeconf-test-{os.getpid()}"
        machine = Machine(tmp_path)
        port = free_port()
        files = {"listen": f"127.0.0.1@{port}", "plugins": "rcpt_ok\nqueue/null"}
        machine.path(CONFIG).mkdir(parents=True)
        write_directory(
            machine.path(CONFIG), {"me": "mx.test", "workers": "1", **files}
        )
        file = Path(f"/run/systemd/system/{name}.service")
        file.write_text(unit_text("qpsmtpd", machine.paths))
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        machine.environment["UNIT"] = name
        yield machine
        subprocess.run(["systemctl", "stop", name], check=True)
        file.unlink()
        subprocess.run(["systemctl", "daemon-reload"], check=True)

    def test_real_systemd_runs_the_filter(real_unit: Machine) -> None:
        name = real_unit.environment["UNIT"]

        Unit(name, "systemctl").adjust(["start"], True)

        master = Unit(name, "systemctl").status()
        assert master.is_running
        filter = OwnDaemon("qpsmtpd", real_unit.paths)
        answer = FilterUnit("qpsmtpd", real_unit.paths, "systemctl")._await_answer()
        assert answer["pid"] == master.pid
        assert filter.adjust(["restart"], True) == ""
        Unit(name, "systemctl").adjust(["stop"], True)
        assert not filter.status().is_running
