"""An install is whole or was not: killed at any step, or on a disk that fails."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from smeconf.events import EventError, Report
from smeconf.events.repair import repair
from smeconf.smtpd.config import Directory
from smeconf.system import System
from tests.support.config import SECONDS, FakeDaemon, FileFacts, Machine
from tests.support.faults import FaultySystem, count_steps, is_killed, signal_event

CONFIG = "var/service/qpsmtpd/config"
TARGETS = (f"{CONFIG}/first", f"{CONFIG}/new", f"{CONFIG}/peers/10.1", "etc/deep/other")
METADATA = 'check_directory = ["true", "{}"]\ngeneration = true\n'


def prepared(place: Path) -> Machine:
    """A machine where ``try`` changes a file, makes some, removes and repairs one."""
    place.mkdir(exist_ok=True)
    machine = Machine(place)
    machine.records("Word=old\nqpsmtpd=service|status|enabled\n")
    machine.fragment(CONFIG, "metadata.toml", METADATA)
    for target in (*TARGETS, f"{CONFIG}/gone", f"{CONFIG}/repaired"):
        machine.fragment(target, "template-begin", "")
        machine.fragment(target, "10", "{{ Word }}\n")
    machine.fragment(f"{CONFIG}/repaired", "10", "same\n")
    targets = [f"{CONFIG}/first", f"{CONFIG}/gone", f"{CONFIG}/repaired"]
    machine.event("before", targets)
    machine.signal("before")
    machine.path(f"{CONFIG}/repaired").chmod(0o600)
    machine.fragment(f"{CONFIG}/gone", "metadata.toml", "delete = true")
    machine.event("try", [*TARGETS, *targets], services={"qpsmtpd": "restart"})
    machine.records("Word=new\nqpsmtpd=service|status|enabled\n")
    return machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return prepared(tmp_path)


OLD = {f"{CONFIG}/first": "old", f"{CONFIG}/gone": "old", f"{CONFIG}/repaired": "same"}
NEW = {**dict.fromkeys(TARGETS, "new"), f"{CONFIG}/repaired": "same"}


def contents(machine: Machine) -> dict[str, str]:
    """What every generated file holds."""
    return {
        str(path.relative_to(machine.root)): path.read_text().strip()
        for folder in (CONFIG, "etc/deep")
        for path in machine.path(folder).rglob("*")
        if path.is_file()
    }


def facts(machine: Machine) -> dict[str, FileFacts | None]:
    return {target: machine.facts(target) for target in OLD}


def as_a_filter_reads_it(machine: Machine) -> dict[str, str]:
    """What a filter that starts now gets."""
    directory = Directory(str(machine.path(CONFIG)))
    names = ["first", "new", "peers/10.1", "gone", "repaired"]
    found = {f"{CONFIG}/{n}": directory.lines(n) for n in names if directory.has(n)}
    assert directory.names("peers") == (["10.1"] if directory.has("peers/10.1") else [])
    return {name: lines[0].text for name, lines in found.items()}


def of_the_filter(contents: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in contents.items() if name.startswith(CONFIG)}


def test_install_changes_all_and_leaves_no_litter(machine: Machine) -> None:
    machine.signal("try")

    assert contents(machine) == NEW
    assert journal(machine) == []


def test_event_that_is_killed_at_any_step_is_whole_in_the_end(tmp_path: Path) -> None:
    """And what a filter reads in the meantime is whole, whenever it starts."""
    step = 0
    was_killed = True
    while was_killed:
        step += 1
        machine = prepared(tmp_path / str(step))
        before = facts(machine)

        was_killed = is_killed(partial(signal_event, machine, "try"), at=step)
        seen = as_a_filter_reads_it(machine)
        assert repair(machine.paths, System(), Report()) == []

        after = contents(machine)
        assert seen in (of_the_filter(OLD), of_the_filter(NEW)), step
        assert after in (OLD, NEW), step
        assert as_a_filter_reads_it(machine) == of_the_filter(after), step
        if after == OLD:
            # The very files, not copies of them.
            assert facts(machine) == before, step
            assert not machine.path("etc/deep").exists(), step
        machine.signal("try")
        assert contents(machine) == NEW, step
        assert journal(machine) == [], step
    assert step > 40


@pytest.mark.parametrize("part", [0.3, 0.5, 0.6, 0.7, 0.9])
def test_repair_that_is_killed_at_any_step_is_taken_up_again(
    tmp_path: Path, part: float
) -> None:
    """Whichever part of the event had been done."""
    twin = prepared(tmp_path / "twin")
    done = int(part * count_steps(partial(signal_event, twin, "try")))
    step = 0
    was_killed = True
    while was_killed:
        step += 1
        machine = prepared(tmp_path / str(step))
        before = facts(machine)
        assert is_killed(partial(signal_event, machine, "try"), at=done)

        was_killed = is_killed(partial(put_back, machine), at=step)
        seen = as_a_filter_reads_it(machine)
        put_back(machine, System())

        after = contents(machine)
        assert seen in (of_the_filter(OLD), of_the_filter(NEW)), step
        assert after in (OLD, NEW), step
        assert after == NEW or facts(machine) == before, step
        assert journal(machine) == [], step
    assert step > 5


def test_what_was_edited_since_the_kill_is_kept(machine: Machine) -> None:
    twin_steps = count_steps(
        partial(signal_event, prepared(machine.root / "twin"), "try")
    )
    assert is_killed(partial(signal_event, machine, "try"), at=int(0.7 * twin_steps))
    assert contents(machine)[f"{CONFIG}/first"] == "new"
    machine.write(f"{CONFIG}/first", "by hand\n")

    put_back(machine, System())

    assert machine.read(f"{CONFIG}/first") == "old\n"
    assert machine.read(f"{CONFIG}/first.edited") == "by hand\n"


def test_service_that_was_told_by_a_killed_event_is_told_again(
    machine: Machine,
) -> None:
    """It may serve on files that were put back since."""
    asked = threading.Event()
    with FakeDaemon(machine, lambda request: asked.set()):
        run = machine.start("signal-event", "try")
        assert asked.wait(SECONDS)
        run.kill()
        run.communicate()
    machine.path("run/qpsmtpd/control").unlink()

    with FakeDaemon(machine, lambda request: {"ok": False, "error": "busy"}):
        said = repair(machine.paths, System(), Report())
        assert said == ["qpsmtpd keeps its old configuration: busy"]
    machine.path("run/qpsmtpd/control").unlink()
    assert contents(machine) == OLD
    report = machine.run("smeconf doctor", check=False)
    assert "qpsmtpd may serve on files that were put back since" in report.output

    with FakeDaemon(machine) as daemon:
        machine.run("smeconf doctor --repair", check=False)

    assert daemon.requests[0] == "reload"
    assert journal(machine) == []


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EROFS])
def test_fault_of_the_disk_at_any_step_puts_all_back(tmp_path: Path, kind: int) -> None:
    twin = prepared(tmp_path / "twin")
    steps = count_steps(partial(signal_event, twin, "try"))
    failed = 0
    for step in range(1, steps + 1):
        machine = prepared(tmp_path / str(step))
        before = facts(machine)

        def fail(number: int, name: str, step: int = step) -> None:
            if number == step:
                raise OSError(kind, os.strerror(kind), "somewhere")

        error = fault_of(machine, FaultySystem(fail))
        if error is None:
            # What failed was the cleaning up, which the next run makes good.
            put_back(machine, System())
            assert contents(machine) == NEW, step
            continue
        failed += 1
        assert os.strerror(kind) in str(error)
        assert not error.left
        assert facts(machine) == before, step
        assert contents(machine) == OLD, step
    assert failed > 30


def test_disk_that_stays_full_leaves_the_rest_to_a_repair(machine: Machine) -> None:
    """Nothing can be written any more from the middle of the install on."""

    def fail(number: int, name: str) -> None:
        if number > 30 and name in ("write", "replace"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    before = facts(machine)
    with pytest.raises(EventError, match="No space left on device"):
        signal_event(machine, "try", FaultySystem(fail))

    assert as_a_filter_reads_it(machine) == of_the_filter(OLD)
    put_back(machine, System())
    assert facts(machine) == before


def test_targets_may_lie_on_several_file_systems(
    machine: Machine, elsewhere: Path
) -> None:
    """What is renamed lies beside its target, wherever links lead."""
    machine.path(f"{CONFIG}/peers").symlink_to(elsewhere)
    machine.signal("try")
    assert contents_by_name(machine) == NEW
    assert os.listdir(elsewhere) == ["10.1"]

    machine.records("Word=newer\nqpsmtpd=service|status|enabled\n")
    machine.path(f"{CONFIG}/repaired").chmod(0o600)
    with pytest.raises(EventError, match="No space left"):
        signal_event(machine, "try", failing_disk())
    assert contents_by_name(machine) == NEW
    assert os.listdir(elsewhere) == ["10.1"]


def test_kill_between_two_file_systems_is_undone(
    machine: Machine, elsewhere: Path
) -> None:
    machine.path(f"{CONFIG}/peers").symlink_to(elsewhere)
    before = facts(machine)

    def die(number: int, name: str) -> None:
        if name == "repair":  # the last target, in the order of their names
            os.kill(os.getpid(), signal.SIGKILL)

    assert is_killed(lambda _: signal_event(machine, "try", FaultySystem(die)), at=0)
    assert (elsewhere / "10.1").read_text() == "new\n"
    assert as_a_filter_reads_it(machine) == of_the_filter(OLD)

    put_back(machine, System())

    assert facts(machine) == before
    assert os.listdir(elsewhere) == []


def test_target_that_is_a_link_stays_one(machine: Machine, elsewhere: Path) -> None:
    """The file that it leads to is changed, and put back, where it lies."""
    real = elsewhere / "real"
    real.write_text("old\n")
    link = machine.path(f"{CONFIG}/first")
    link.unlink()
    link.symlink_to(real)

    with pytest.raises(EventError):
        signal_event(machine, "try", failing_disk())
    assert (real.read_text(), link.readlink()) == ("old\n", real)

    machine.signal("try")
    assert (real.read_text(), link.readlink()) == ("new\n", real)
    assert os.listdir(elsewhere) == ["real"]


def failing_disk() -> System:
    """A disk that fails when the files have been renamed."""

    def fail(number: int, name: str) -> None:
        if name == "repair":  # the last target, in the order of their names
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    return FaultySystem(fail)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system, where this machine has one."""
    memory = Path("/dev/shm")
    is_other = memory.is_dir() and memory.stat().st_dev != tmp_path.stat().st_dev
    place = memory if is_other else tmp_path
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


def contents_by_name(machine: Machine) -> dict[str, str]:
    """What the targets hold, however they are reached."""
    return {
        target: machine.read(target).strip()
        for target in (*NEW, f"{CONFIG}/gone")
        if machine.path(target).exists()
    }


def fault_of(machine: Machine, system: System) -> EventError | None:
    try:
        signal_event(machine, "try", system)
    except EventError as error:
        return error
    return None


def journal(machine: Machine) -> list[str]:
    return os.listdir(machine.path("var/lib/smeconf/journal"))


def put_back(machine: Machine, system: System) -> None:
    assert repair(machine.paths, system, Report()) == []
