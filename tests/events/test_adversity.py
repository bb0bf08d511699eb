"""What an unlucky administrator or a hostile user meets, and what must hold."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from smeconf.events import EventError, Report
from smeconf.events.repair import repair
from smeconf.smtpd.config import Directory
from smeconf.system import System
from tests.support.config import BIN, SECONDS, FakeDaemon, Machine
from tests.support.faults import FaultySystem, count_steps, is_killed, signal_event

STATE = "var/lib/smeconf"
NOBODY = 65534


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine where ``try`` changes two files."""
    return prepared(tmp_path)


def prepared(place: Path) -> Machine:
    place.mkdir(exist_ok=True)
    machine = Machine(place)
    machine.records("Word=old\nqpsmtpd=service|status|enabled\n")
    for target in ("etc/a", "etc/b"):
        machine.fragment(target, "template-begin", "")
        machine.fragment(target, "10", "{{ Word }}\n")
    machine.event("try", ["etc/a", "etc/b"])
    machine.signal("try")
    machine.records("Word=new\nqpsmtpd=service|status|enabled\n")
    return machine


def texts(machine: Machine) -> list[str]:
    return [machine.read(target) for target in ("etc/a", "etc/b")]


# Locks


@pytest.mark.parametrize("running", [None, "garbage", '{"pid": null}', "[]"])
def test_lock_is_waited_for_whatever_is_known_of_its_holder(
    machine: Machine, running: str | None
) -> None:
    if running is not None:
        machine.write(f"{STATE}/event.running", running)
    with open(machine.path(f"{STATE}/event.lock"), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        run = machine.start("signal-event", "try")

        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(0.7)
        assert texts(machine) == ["old\n", "old\n"]
    said = run.communicate(timeout=SECONDS)[0]
    assert run.returncode == 0, said
    assert said.startswith(b"waiting for another event\n")
    assert texts(machine) == ["new\n", "new\n"]


def test_lock_is_nobody_elses(machine: Machine) -> None:
    assert machine.path(f"{STATE}/event.lock").stat().st_mode & 0o077 == 0


def test_event_that_told_no_service_is_not_shared_by_one_that_must(
    machine: Machine,
) -> None:
    """smeconf init expands what email-update does, and leaves services alone."""
    machine.run("smeconf init")
    outcome = json.loads(machine.read(f"{STATE}/runs/email-update"))
    outcome["began"] = 2**62  # as if it began after every caller had asked
    machine.write(f"{STATE}/runs/email-update", json.dumps(outcome))

    with FakeDaemon(machine) as daemon:
        machine.run("signal-event email-update")

    assert daemon.requests == ["reload"]


def test_events_that_an_action_signals_at_once_do_not_disturb_each_other(
    machine: Machine,
) -> None:
    names = [f"inner{number}" for number in range(5)]
    for name in names:
        machine.fragment(f"etc/{name}", "10", "{{ Word }}\n")
        machine.event(name, [f"etc/{name}"])
    calls = " ".join(f"signal-event {name} &" for name in names)
    machine.event("outer", actions={"S50": f"{calls} wait"})

    machine.run("signal-event outer")

    written = json.loads(machine.read(f"{STATE}/written.json"))
    assert {f"etc/{name}" for name in names} <= written.keys()
    assert os.listdir(machine.path(f"{STATE}/journal")) == []


# What is lost or garbled


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0\0"])
@pytest.mark.parametrize(
    "path", ["written.json", "runs/try", "event.running", "templates.cache"]
)
def test_state_that_is_lost_stops_no_event(
    machine: Machine, path: str, text: str
) -> None:
    machine.write(f"{STATE}/{path}", text)

    machine.run("signal-event try")

    assert texts(machine) == ["new\n", "new\n"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 1}'])
def test_journal_that_is_garbled_is_named_with_what_to_do(
    machine: Machine, text: str
) -> None:
    path = machine.write(f"{STATE}/journal/abc.begun", text)

    for command in ("signal-event try", "smeconf doctor --repair"):
        result = machine.run(command, check=False)
        assert result.status == 1
        assert f"{path}: is no journal of an install: move it away" in result.errors
        assert "Traceback" not in result.errors
    path.unlink()
    machine.run("signal-event try")


def test_copy_of_a_root_never_reaches_into_the_original(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    steps = count_steps(partial(signal_event, prepared(machine.root / "twin"), "try"))
    assert is_killed(partial(signal_event, machine, "try"), at=int(0.6 * steps))
    copy = tmp_path_factory.mktemp("elsewhere") / "root"
    shutil.copytree(machine.root, copy)
    machine.signal("try")

    assert repair(Machine(copy).paths, System(), Report()) == []

    assert texts(machine) == ["new\n", "new\n"]
    assert texts(Machine(copy)) == ["old\n", "old\n"]


# Files that resist


def test_target_that_may_not_be_touched_stops_no_other_event(machine: Machine) -> None:
    """Neither a second name nor a rename is allowed: an immutable file."""
    machine.fragment("etc/other", "10", "x\n")
    machine.event("other", ["etc/other"])
    place = str(machine.path("etc/b"))

    class Immutable(System):
        def rename(self, path: str, new: str) -> None:
            if new == place:
                raise PermissionError(errno.EPERM, "Operation not permitted", new)
            super().rename(path, new)

        def link(self, path: str, also: str) -> None:
            state = self.find(path)
            assert state
            self.write(also, state)

    with pytest.raises(EventError, match="/etc/b: cannot be written: Operation not"):
        signal_event(machine, "try", Immutable())

    assert texts(machine) == ["old\n", "old\n"]
    machine.run("signal-event other")
    assert sorted(os.listdir(machine.path("etc"))) == ["a", "b", "other", "smeconf"]


def test_file_that_is_gone_before_it_is_put_back_stops_nothing(
    machine: Machine,
) -> None:
    """Its mode alone was to be repaired."""
    machine.records("Word=old\nqpsmtpd=service|status|enabled\n")
    machine.path("etc/a").chmod(0o600)
    machine.event("try", actions={"S50": f"rm {machine.path('etc/a')}; exit 1"})

    with pytest.raises(EventError) as caught:
        machine.signal("try")

    assert caught.value.left == []


@pytest.mark.parametrize("length", [250, 255])
def test_hand_edit_of_a_file_with_a_long_name_is_kept(
    machine: Machine, length: int
) -> None:
    name = "é" * 4 + "n" * (length - 8)
    machine.fragment(f"etc/{name}", "10", "x\n")
    machine.event("long", [f"etc/{name}"])
    machine.write(f"etc/{name}", "by hand\n")

    machine.run("signal-event long")

    (kept,) = machine.path("etc").glob("*.edited")
    assert kept.read_text() == "by hand\n"


def test_pipe_in_the_place_of_a_kept_edit_is_passed_over(machine: Machine) -> None:
    machine.write("etc/a", "by hand\n")
    os.mkfifo(machine.path("etc/a.edited"))

    machine.run("signal-event try")

    assert machine.read("etc/a.edited.2") == "by hand\n"


def test_edit_that_is_made_while_the_event_checks_is_not_lost(
    machine: Machine,
) -> None:
    target = machine.path("etc/a")
    check = machine.write("check", f"#!/bin/sh\necho admin wrote >{target}\n", 0o755)
    machine.fragment("etc/a", "metadata.toml", f'check = ["{check}", "{{}}"]')

    result = machine.run("signal-event try", check=False)

    assert result.status == 1
    assert "/etc/a: cannot be written: somebody else has just changed it" in (
        result.errors
    )
    assert texts(machine) == ["admin wrote\n", "old\n"]


def test_edit_that_an_administrator_kept_himself_survives_an_undo(
    machine: Machine,
) -> None:
    machine.write("etc/a", "by hand\n")

    def interfere(number: int, name: str) -> None:
        # The journal is written, and nothing has a second name yet.
        if name == "link" and not machine.path("etc/a.edited").exists():
            machine.write("etc/a.edited", "his own\n")

    with pytest.raises(EventError):
        signal_event(machine, "try", FaultySystem(interfere))

    assert machine.read("etc/a.edited") == "his own\n"
    assert texts(machine) == ["by hand\n", "old\n"]


def test_directory_behind_a_link_is_read_whole_as_well(tmp_path: Path) -> None:
    """The filter reads old files meanwhile, wherever their directory really is."""
    config = "var/service/qpsmtpd/config"

    def behind_a_link(place: Path) -> Machine:
        machine = prepared(place)
        machine.path("srv/deep/config").mkdir(parents=True)
        machine.path(config).parent.mkdir(parents=True)
        machine.path(config).symlink_to(machine.path("srv/deep/config"))
        machine.records("Word=old\nqpsmtpd=service|status|enabled\n")
        metadata = 'check_directory = ["true"]\ngeneration = true\n'
        machine.fragment(config, "metadata.toml", metadata)
        targets = [f"{config}/{name}" for name in ("one", "two", "three")]
        for target in targets:
            machine.fragment(target, "template-begin", "")
            machine.fragment(target, "10", "{{ Word }}\n")
        machine.event("whole", targets)
        machine.signal("whole")
        machine.records("Word=new\nqpsmtpd=service|status|enabled\n")
        return machine

    twin = behind_a_link(tmp_path / "twin")
    for step in range(1, count_steps(partial(signal_event, twin, "whole"))):
        machine = behind_a_link(tmp_path / str(step))
        assert is_killed(partial(signal_event, machine, "whole"), at=step)
        for path in (config, "srv/deep/config"):
            directory = Directory(str(machine.path(path)))
            read = {directory.lines(name)[0].text for name in ("one", "two", "three")}
            assert len(read) == 1, (step, path)


# Who calls


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_nobody_who_listens_undoes_no_event(machine: Machine, how: str) -> None:
    machine.write("etc/a", "by hand\n")  # so that there is something to say

    status = subprocess.run(
        ["sh", "-c", f"{BIN}/signal-event try {how}"],
        env=machine.environment,
        timeout=SECONDS,
        check=False,
    ).returncode

    assert status == 0
    assert texts(machine) == ["new\n", "new\n"]


@pytest.mark.parametrize("mask", ["000", "077"])
def test_modes_are_the_same_whatever_the_umask(machine: Machine, mask: str) -> None:
    machine.fragment("srv/made/file", "10", "x\n")
    machine.event("made", ["srv/made/file"])
    command = f"umask {mask}; exec {BIN}/signal-event made"

    subprocess.run(
        ["sh", "-c", command], env=machine.environment, timeout=SECONDS, check=True
    )

    for path in ("srv", "srv/made", f"{STATE}/runs", f"{STATE}/journal"):
        assert machine.path(path).stat().st_mode & 0o777 == 0o755, path
    assert machine.path("srv/made/file").stat().st_mode & 0o777 == 0o644


def test_copies_that_a_killed_check_has_left_are_removed(machine: Machine) -> None:
    left = machine.write(f"{STATE}/smeconf-check-abc/etc/a", "with a secret in it\n")

    machine.run("signal-event try")

    assert not left.parent.parent.exists()


# A test of this kind needs two users: it is there for root alone.
if os.geteuid() == 0:

    @pytest.mark.parametrize("what", ["file", "directory"])
    def test_link_that_a_user_made_is_not_followed_by_root(
        machine: Machine, what: str
    ) -> None:
        secret = machine.write("etc/secret/forward", "secret\n", 0o600)
        home = machine.path("home/ann")
        home.mkdir(parents=True)
        os.chown(home, NOBODY, NOBODY)
        target = "home/ann/forward" if what == "file" else "home/ann/mail/forward"
        link = home / ("forward" if what == "file" else "mail")
        link.symlink_to(secret if what == "file" else secret.parent)
        os.lchown(link, NOBODY, NOBODY)
        machine.fragment(target, "10", "x\n")
        machine.event("home", [target])

        result = machine.run("signal-event home", check=False)

        assert result.status == 1
        assert f"is a link that user {NOBODY} has made" in result.errors
        assert secret.read_text() == "secret\n"
