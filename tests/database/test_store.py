"""The file of a database: no change is lost, none is half there."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smeconf.database import Database, DatabaseError, Record
from smeconf.database import store as storing
from tests.support.config import BIN, SECONDS, Machine

ROOT = Path(__file__).parents[2]
OLD = "# h\n# updated: then\nDomainName=a.test\nqpsmtpd=service|DNSBL|enabled\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "configuration"
    file.write_text(OLD)
    file.chmod(0o640)
    return file


def start(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.database.writers", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def end(*processes: subprocess.Popen[str]) -> list[int]:
    for process in processes:
        process.communicate(timeout=SECONDS)
    return [process.returncode for process in processes]


def set_property(file: Path | str, key: str, name: str, value: str) -> None:
    with Database(str(file)).transaction() as records:
        record = records.find(key) or Record("service")
        record.properties[name] = value
        records.put(key, record)


def properties(file: Path, key: str) -> dict[str, str]:
    record = Database(str(file)).read().find(key)
    return record.properties if record else {}


def names_in(directory: Path) -> list[str]:
    """What lies in a directory, but for the history."""
    return sorted(n for n in os.listdir(directory) if not n.endswith(".history"))


def history_agrees(file: Path) -> bool:
    """Whether what the history says was set last is what is set."""
    database = Database(str(file))
    last = {(e.key, e.property): e.new for e in database.entries()}
    records = database.read()
    return all(
        (records.find(key) or Record("")).properties.get(name) == value
        for (key, name), value in last.items()
        if name
    )


# Many at once


def test_eight_writers_lose_nothing(file: Path) -> None:
    """Each writes a key that all write, and one of its own."""
    writers = [start("ours", file, str(n), "25", "qpsmtpd", f"k{n}") for n in range(8)]

    assert end(*writers) == [0] * 8

    expected = {f"p{n}_{turn}": str(turn) for n in range(8) for turn in range(25)}
    assert properties(file, "qpsmtpd") == {"DNSBL": "enabled", **expected}
    for n in range(8):
        assert properties(file, f"k{n}") == {
            f"p{n}_{turn}": str(turn) for turn in range(25)
        }


def test_esmith_that_unlinks_the_lock_file_makes_us_lose_nothing(file: Path) -> None:
    others = start("esmith", file, "0", "150")
    writers = [start("ours", file, str(n), "25", "qpsmtpd", f"k{n}") for n in range(6)]

    assert end(others, *writers) == [0] * 7

    assert len(properties(file, "qpsmtpd")) == 1 + 6 * 25
    assert all(len(properties(file, f"k{n}")) == 25 for n in range(6))
    keys = Database(str(file)).read().keys()
    assert len([key for key in keys if key.startswith("esmith0_")]) == 150


def test_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.records(OLD)

    calls = [
        machine.start("config", "setprop", "qpsmtpd", f"X{n}", str(n))
        for n in range(16)
    ]
    for call in calls:
        call.communicate(timeout=SECONDS)

    assert [call.returncode for call in calls] == [0] * 16
    stored = properties(tmp_path / "home/e-smith/db/configuration", "qpsmtpd")
    assert stored == {"DNSBL": "enabled", **{f"X{n}": str(n) for n in range(16)}}


def test_lock_is_taken_again_where_its_file_was_unlinked_meanwhile(file: Path) -> None:
    """We wait on the file that e-smith unlinks: then its inode guards nothing."""
    lock_file = f"{file}.lock"
    theirs = os.open(lock_file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(theirs, fcntl.LOCK_EX)
    waiting = start("ours", file, "0", "1", "k")
    await_waiter(waiting.pid)
    os.unlink(lock_file)
    next_one = os.open(lock_file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(next_one, fcntl.LOCK_EX)

    os.close(theirs)
    await_waiter(waiting.pid, os.fstat(next_one).st_ino)
    assert properties(file, "k") == {}
    os.close(next_one)

    assert end(waiting) == [0]
    assert properties(file, "k") == {"p0_0": "0"}
    assert os.path.exists(lock_file)


def await_waiter(pid: int, inode: int | None = None) -> None:
    """Return once a process waits for a flock (of that inode)."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "->" not in words or words[5] != str(pid):
                continue
            if inode is None or words[6].endswith(f":{inode}"):
                return
        time.sleep(0.005)
    raise AssertionError(f"{pid} never waited for the lock")


def test_reader_sees_whole_files_only(file: Path) -> None:
    writer = start("ours", file, "0", "100", "qpsmtpd")
    seen = set()
    while writer.poll() is None:
        text = file.read_text()
        assert text.startswith("# h\n# updated: ")
        assert text.endswith("\n")
        seen.add(text.count("|p0_"))

    assert end(writer) == [0]
    assert len(seen) > 2


def test_reader_does_not_wait_for_a_writer(file: Path) -> None:
    with Database(str(file)).transaction() as records:
        records.put("k", Record("1"))

        assert Database(str(file)).read().keys() == ["DomainName", "qpsmtpd"]

    assert Database(str(file)).read().keys() == ["DomainName", "k", "qpsmtpd"]


# Killed, full, forbidden


def test_killed_at_any_step_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    trial = tmp_path / "trial"
    trial.write_text(OLD)
    asking = start("steps", trial)
    calls = asking.communicate(timeout=SECONDS)[0].split()
    assert asking.returncode == 0
    assert calls.index("fsync") < calls.index("rename")
    new = trial.read_text().splitlines()[2:]

    moments = [
        (str(step), when)
        for step, name in enumerate(calls, 1)
        for when in ("before", "after", *(["within"] if "write" in name else []))
    ]
    outcomes = set()
    for some in (moments[at : at + 4] for at in range(0, len(moments), 4)):
        running = []
        for step, when in some:
            place = tmp_path / f"{step}{when}"
            place.mkdir()
            file = place / "configuration"
            file.write_text(OLD)
            running.append((start("killed", file, step, when), file))
        outcomes |= {outcome_of_kill(process, file, new) for process, file in running}

    assert outcomes == {"old", "new"}


def outcome_of_kill(process: subprocess.Popen[str], file: Path, new: list[str]) -> str:
    """See that a killed write left a whole file, and that the next one works."""
    place = file.parent
    assert end(process) == [-signal.SIGKILL], place.name
    lines = file.read_text().splitlines()[2:]
    assert lines in (OLD.splitlines()[2:], new), place.name
    assert history_agrees(file), place.name

    set_property(file, "DomainName", "next", "write")

    after = file.read_text().splitlines()[2:]
    assert after == ["DomainName=a.test|next|write", *lines[1:]], place.name
    assert history_agrees(file), place.name
    assert names_in(place) == ["configuration", "configuration.lock"], place.name
    return "new" if lines == new else "old"


def test_litter_of_a_killed_write_is_never_taken_for_data(file: Path) -> None:
    """A longer and older file beside, of another mode, shows nowhere."""
    litter = file.with_name(".configuration.new")
    litter.write_text("# litter\n" + "".join(f"old{n}=1\n" for n in range(500)))
    litter.chmod(0o600)

    set_property(file, "k", "p", "1")

    assert Database(str(file)).read().keys() == ["DomainName", "k", "qpsmtpd"]
    assert file.stat().st_mode & 0o777 == 0o640
    assert not litter.exists()


@pytest.mark.parametrize("call", ["open", "write", "fchmod", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_write_that_fails_changes_nothing_and_leaves_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    real = getattr(os, call)

    def fail(*arguments: Any, **named: Any) -> Any:
        if call == "open" and not str(arguments[0]).endswith(".new"):
            return real(*arguments, **named)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(DatabaseError) as caught:
        set_property(file, "k", "p", "1")
    monkeypatch.undo()

    written = file.parent / ".configuration.history" if call == "fsync" else file
    assert str(caught.value) == f"{written}: cannot be written: {os.strerror(number)}"
    assert history_agrees(file)
    assert file.read_text() == OLD
    assert names_in(file.parent) == ["configuration", "configuration.lock"]
    set_property(file, "k", "p", "1")  # the lock was let go


def test_disk_that_takes_part_of_a_write_is_asked_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))

    set_property(file, "k", "p", "x" * 100)
    monkeypatch.undo()

    assert properties(file, "k") == {"p": "x" * 100}


def test_full_disk_is_one_line_and_status_1(tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk."""
    machine = Machine(tmp_path)
    file = machine.records(OLD)

    done = subprocess.run(
        [BIN / "config", "setprop", "qpsmtpd", "RBLList", "long.list.test," * 50],
        env=machine.environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    history = machine.path("var/lib/smeconf/history/configuration")
    assert done.stderr == f"config: {history}: cannot be written: File too large\n"
    assert file.read_text() == OLD


def test_database_that_is_no_file_is_one_line_and_status_1(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    path = machine.path("home/e-smith/db/configuration")
    path.mkdir(parents=True)

    for words in ("config keys", "config set k 1", "config getprop k p"):
        result = machine.run(words, check=False)

        assert (result.status, result.output) == (1, "")
        assert result.errors == f"config: {path}: cannot be read: Is a directory\n"


def test_directory_that_cannot_be_made_is_one_line_and_status_1(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("home/e-smith/db", "a file where the directory should be\n")

    result = machine.run("config set k 1", check=False)

    path = machine.path("home/e-smith/db/configuration")
    assert (result.status, result.output) == (1, "")
    assert result.errors.startswith(f"config: {path}: cannot be locked for writing: ")
    assert result.errors.count("\n") == 1


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that any user can reach, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


NOBODY = """
import os, sys
import difflib, fcntl, time
import smeconf.cli.db_change, smeconf.database._compiled
from smeconf.cli.db import config
if os.geteuid() == 0:  # only now: nobody may not even read this Python
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
config()
"""


def as_nobody(machine: Machine, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, *words],
        env=machine.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_who_may_not_write_is_told_so(open_directory: Path) -> None:
    machine = Machine(open_directory)
    file = machine.records(OLD)
    file.chmod(0o444)
    file.parent.chmod(0o555)

    refused = as_nobody(machine, "setprop", "qpsmtpd", "DNSBL", "disabled")
    reading = as_nobody(machine, "getprop", "qpsmtpd", "DNSBL")
    file.parent.chmod(0o755)

    reason = "cannot be locked for writing: Permission denied"
    assert refused == (1, "", f"config: {file}: {reason}\n")
    assert reading == (0, "enabled\n", "")
    assert file.read_text() == OLD


def test_who_may_not_read_is_told_so(open_directory: Path) -> None:
    machine = Machine(open_directory)
    file = machine.records(OLD)
    file.chmod(0o000)

    reading = as_nobody(machine, "getprop", "qpsmtpd", "DNSBL")

    assert reading == (1, "", f"config: {file}: cannot be read: Permission denied\n")


# What a write keeps, and what it costs


def test_write_keeps_owner_and_mode(file: Path) -> None:
    file.chmod(0o604)
    owner = (os.geteuid(), os.getegid())
    if os.geteuid() == 0:
        owner = (12345, 54321)
        os.chown(file, *owner)

    set_property(file, "k", "p", "1")

    status = file.stat()
    assert status.st_mode & 0o7777 == 0o604
    assert (status.st_uid, status.st_gid) == owner


def test_new_database_is_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "deep/below/accounts"
    old_mask = os.umask(0)

    set_property(file, "k", "p", "1")
    os.umask(old_mask)

    status = file.stat()
    assert status.st_mode & 0o7777 == 0o640
    if os.geteuid() == 0:
        try:
            group = grp.getgrnam("admin").gr_gid
        except KeyError:
            group = 0
        assert (status.st_uid, status.st_gid) == (0, group)


def test_symlink_stays_and_its_file_is_written(file: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    link = place / "link"
    link.symlink_to("../configuration")

    set_property(link, "k", "p", "1")

    assert os.readlink(link) == "../configuration"
    assert properties(file, "k") == {"p": "1"}
    assert names_in(place) == ["link"]


def test_all_changes_of_a_transaction_are_one_write(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames = count_calls(monkeypatch, "rename")

    with Database(str(file)).transaction() as records:
        for number in range(50):
            records.put(f"k{number}", Record("service", {"p": str(number)}))
        records.delete("DomainName")

    assert len(renames) == 1
    assert len(Database(str(file)).read()) == 51


def test_nothing_is_written_where_nothing_changed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames = count_calls(monkeypatch, "rename")
    before = file.stat()

    set_property(file, "qpsmtpd", "DNSBL", "enabled")

    assert renames == []
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )


def test_exception_in_a_transaction_writes_nothing_and_lets_go(file: Path) -> None:
    def change() -> None:
        with Database(str(file)).transaction() as records:
            records.put("k", Record("1"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change()

    assert file.read_text() == OLD
    set_property(file, "k", "p", "1")


def test_unstorable_record_is_refused_with_database_and_key(file: Path) -> None:
    reason = "configuration qpsmtpd: property X: a backslash at the end"
    with (
        pytest.raises(DatabaseError, match=reason),
        Database(str(file)).transaction() as records,
    ):
        records.put("qpsmtpd", Record("service", {"X": "a\\"}))

    assert file.read_text() == OLD


def test_change_is_durable_before_the_transaction_ends(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data, then file, then name: written, synced, renamed, directory synced."""
    happened: list[str] = []

    def note(name: str, what: Callable[..., str]) -> None:
        real = getattr(os, name)

        def noted(*arguments: Any, **named: Any) -> Any:
            happened.append(f"{name} {what(*arguments)}")
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, noted)

    def of_descriptor(descriptor: int, *_: Any) -> str:
        return os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))

    note("write", of_descriptor)
    note("pwrite", of_descriptor)
    note("fchmod", of_descriptor)
    note("fsync", of_descriptor)
    note("rename", lambda old, new: f"{os.path.basename(old)} {os.path.basename(new)}")

    set_property(file, "k", "p", "1")
    monkeypatch.undo()

    beside = ".configuration.new"
    assert happened == [
        "pwrite .configuration.history",
        "fsync .configuration.history",
        f"write {beside}",
        f"fchmod {beside}",
        f"fsync {beside}",
        f"rename {beside} configuration",
        f"fsync {file.parent.name}",
    ]


def test_date_of_the_change_stands_in_the_head(file: Path) -> None:
    set_property(file, "k", "p", "1")

    head = file.read_text().splitlines()[1]
    day = time.ctime().split()[0]
    assert head.startswith(f"# updated: {day} ")


def test_bytes_that_are_no_text_are_kept(file: Path) -> None:
    file.write_bytes(OLD.encode() + b"z=service|p|\xff\xfe\n")

    set_property(file, "k", "p", "1")

    assert file.read_bytes().endswith(b"z=service|p|\xff\xfe\n")


def test_missing_file_is_an_empty_database(tmp_path: Path) -> None:
    assert Database(str(tmp_path / "none")).read().keys() == []


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    calls: list[Any] = []
    real = getattr(os, name)

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(storing.os, name, counted)
    return calls
