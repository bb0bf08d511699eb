"""The log: one line an event, whatever a client sent, wherever it goes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.smtpd import log_targets
from smeconf.smtpd.address import Address
from smeconf.smtpd.config import ConfigError, Directory
from smeconf.smtpd.hooks import deny
from smeconf.smtpd.listeners import Identity
from smeconf.smtpd.log import DEBUG, ERROR, INFO, WARNING, Log, one_field
from smeconf.smtpd.log_settings import LogOutlet, LogSettings, prepare_log
from smeconf.smtpd.log_targets import File, Stream, Syslog
from smeconf.smtpd.message_log import Findings, MessageLog
from smeconf.smtpd.state import Connection, Transaction
from tests.support.smtp import SECONDS, Filter, write_directory

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} "


def written(text: str, level: int = INFO, of: int = INFO) -> str:
    """What a log of level `of` writes."""
    read, write = os.pipe()
    try:
        Log(of, Stream(write)).line(level, text)
        os.close(write)
        return os.read(read, 65536).decode("utf-8")
    finally:
        os.close(read)


def test_line_is_written_as_it_is() -> None:
    assert written("1.1 (rcpt) rcpt_ok: pass, bücher\tx") == (
        "1.1 (rcpt) rcpt_ok: pass, bücher\tx\n"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb", r"a\x0ab"),
        ("a\r\nb", r"a\x0d\x0ab"),
        ("a\0b", r"a\x00b"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x7f", r"\x7f"),
        ("\x85\x9b", r"\x85\x9b"),
        (b"\xff".decode("utf-8", "surrogateescape"), r"\xff"),
    ],
)
def test_control_characters_are_written_as_escapes(text: str, line: str) -> None:
    assert written(text) == line + "\n"


@given(st.text(st.characters(), max_size=50))
def test_one_event_is_one_line(text: str) -> None:
    line = written(text)

    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert "\r" not in line
    assert "\x1b" not in line


def test_what_is_less_urgent_than_the_level_is_left_out() -> None:
    assert written("x", DEBUG) == ""
    assert written("x", ERROR, ERROR) == "x\n"
    assert written("x", INFO, ERROR) == ""


def test_log_that_cannot_be_written_stops_nothing() -> None:
    read, write = os.pipe()
    os.close(read)

    Log(INFO, Stream(write)).line(INFO, "x")

    os.close(write)


def test_field_has_no_tab() -> None:
    assert one_field("a\tb") == "a b"


# Standard error


def test_levels_are_told_where_a_stream_has_them() -> None:
    read, write = os.pipe()
    target = Stream(write, has_levels=True)
    target.write(ERROR, "bad")
    target.write(8, "chatty")

    assert os.read(read, 100) == b"<3>bad\n<7>chatty\n"
    os.close(read)
    os.close(write)


@pytest.fixture(params=["pipe", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Two ends of what standard error may be: to read, to write."""
    if request.param == "pipe":
        read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 8192)
    else:
        one, other = socket.socketpair()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        read, write = one.detach(), other.detach()
    yield read, write
    os.close(read)
    os.close(write)


def drain(file: int) -> bytes:
    data = b""
    while select.select([file], [], [], 0.05)[0]:
        data += os.read(file, 65536)
    return data


def test_reader_that_is_stuck_costs_lines_and_not_time(
    ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = ends
    target = Stream(write)
    target.never_wait()
    polls: list[Any] = []
    poll = select.poll
    monkeypatch.setattr(log_targets, "_WAIT_MS", 1)
    monkeypatch.setattr(
        log_targets.select, "poll", lambda: polls.append(poll()) or polls[-1]
    )

    for number in range(3000):
        target.write(INFO, f"line {number:04} " + "x" * 300)

    first = drain(read)
    target.write(INFO, "the last")
    lines = (first + drain(read)).decode().splitlines()
    assert re.fullmatch(r"\d+ log: \d+ lines could not be written", lines[-2])
    assert lines[-1] == "the last"
    lost = int(lines[-2].split()[2])
    assert lost + len(lines) - 2 == 3000
    assert all(re.fullmatch(r"line \d{4} x{300}", line) for line in lines[:-2])
    assert lost > 1000
    assert len(polls) == 1
    target.close()


def test_descriptor_of_others_stays_as_it_is(ends: tuple[int, int]) -> None:
    target = Stream(ends[1])
    target.never_wait()

    target.close()
    assert os.get_blocking(ends[1])


# A file


def test_file_has_times_and_is_no_ones_else(tmp_path: Path) -> None:
    path = tmp_path / "current"
    old = os.umask(0)
    try:
        target = File(str(path))
    finally:
        os.umask(old)
    target.write(INFO, "12 one")
    target.write(INFO, "12 two")

    assert re.fullmatch(rf"{STAMP}12 one\n{STAMP}12 two\n", path.read_text())
    assert path.stat().st_mode & 0o7777 == 0o640
    target.close()


def test_file_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "current"
    path.write_text("old\n")

    target = File(str(path), has_times=False)
    target.write(INFO, "new")

    assert path.read_text() == "old\nnew\n"
    target.close()


def test_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "current", tmp_path / "current.1"
    target = File(str(path), has_times=False)
    target.write(INFO, "one")
    target.tick()
    path.rename(moved)
    target.write(INFO, "two")

    target.tick()

    target.write(INFO, "three")
    assert moved.read_text() == "one\ntwo\n"
    assert path.read_text() == "three\n"
    target.close()


def test_old_file_is_written_on_where_there_can_be_no_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    target = File(str(folder / "current"), has_times=False)
    folder.rename(tmp_path / "moved")

    target.tick()
    target.reopen()
    target.write(INFO, "one")

    assert (tmp_path / "moved/current").read_text() == "one\n"
    target.close()


def test_lines_that_a_full_disk_lost_are_told(tmp_path: Path) -> None:
    path = tmp_path / "current"
    target = File(str(path))
    good, target._file = target._file, os.open("/dev/full", os.O_WRONLY)
    target.write(INFO, "lost")
    target.write(INFO, "lost")
    os.close(target._file)
    target._file = good

    target.write(INFO, "12 kept")

    said = rf"\n{STAMP}\d+ log: 2 lines could not be written\n{STAMP}12 kept\n"
    assert re.fullmatch(said, path.read_text())
    target.close()


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_a_file_is_logged_to(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "current"
    if kind == "link":
        (tmp_path / "passwd").write_text("root\n")
        path.symlink_to("passwd")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()

    with pytest.raises(OSError, match=r".+"):
        File(str(path))


# Syslog


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.settimeout(SECONDS)
        bind(daemon, tmp_path)
        yield daemon


def bind(daemon: socket.socket, folder: Path) -> None:
    """Bind to FOLDER/log, which may be longer than a socket address holds."""
    (folder / "log").unlink(missing_ok=True)
    directory = os.open(folder, os.O_RDONLY)
    daemon.bind(f"/proc/self/fd/{directory}/log")
    os.close(directory)


def test_syslog_gets_facility_level_time_and_process(
    tmp_path: Path, daemon: socket.socket
) -> None:
    target = Syslog(str(tmp_path / "log"))
    Log(INFO, target).line(WARNING, "12 a\nb")

    (said,) = [daemon.recv(9000).decode()]
    assert re.fullmatch(
        rf"<20>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d qpsmtpd\[{os.getpid()}\]: "
        r"12 a\\x0ab",
        said,
    )
    target.reopen()


def test_long_line_is_cut_between_two_letters(
    tmp_path: Path, daemon: socket.socket
) -> None:
    for shift in range(2):
        target = Syslog(str(tmp_path / "log"))
        target.write(INFO, "x" * shift + "ü" * 8000)

        said = daemon.recv(20000)
        assert 8190 < len(said) <= 8192
        assert said.decode().endswith("ü")
        target.reopen()


def test_syslog_that_is_not_there_loses_lines_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Syslog(str(tmp_path / "log"))
    target.write(INFO, "lost")
    target.write(INFO, "lost")
    monkeypatch.setattr(target, "_retry_at", 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.settimeout(SECONDS)
        bind(daemon, tmp_path)

        target.write(INFO, "kept")

        assert b"log: 2 lines could not be written" in daemon.recv(9000)
        assert daemon.recv(9000).endswith(b": kept")
    target.reopen()


def test_syslog_that_was_started_anew_is_found(
    tmp_path: Path, daemon: socket.socket
) -> None:
    target = Syslog(str(tmp_path / "log"))
    target.write(INFO, "one")
    daemon.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.settimeout(SECONDS)
        bind(second, tmp_path)

        target.write(INFO, "two")

        assert second.recv(9000).endswith(b": two")
    target.reopen()


def test_syslog_that_does_not_read_is_not_waited_for(
    tmp_path: Path, daemon: socket.socket
) -> None:
    target = Syslog(str(tmp_path / "log"))
    done = threading.Event()

    def flood() -> None:
        for _ in range(5000):
            target.write(INFO, "x" * 1000)
        done.set()

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()

    assert done.wait(SECONDS)
    thread.join()
    target.reopen()


# Settings


def read(tmp_path: Path, **files: str) -> LogSettings:
    (tmp_path / "config").mkdir()
    return LogSettings.read(Directory(str(write_directory(tmp_path / "config", files))))


def test_log_goes_to_standard_error_where_nothing_is_set(tmp_path: Path) -> None:
    assert read(tmp_path) == LogSettings("stderr", has_json=False)


def test_target_and_format_are_read(tmp_path: Path) -> None:
    settings = read(tmp_path, log_target="syslog", log_format="json")

    assert settings == LogSettings("syslog", has_json=True)


@pytest.mark.parametrize("name", ["log_target", "log_format"])
def test_word_that_is_not_known_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"{name}:1: must be one of .*, not 'stdout'"
    ):
        read(tmp_path, **{name: "stdout"})


def test_directory_and_files_are_made_before_privileges_are_given_up(
    tmp_path: Path,
) -> None:
    settings = LogSettings("file", has_json=True)

    prepare_log(settings, str(tmp_path), Identity("", str(tmp_path)))

    folder = tmp_path / "var/log/qpsmtpd"
    assert sorted(os.listdir(folder)) == ["current", "messages.json"]
    assert (folder / "current").stat().st_mode & 0o7777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_file_with_a_second_name_is_not_given_away(tmp_path: Path) -> None:
    folder = tmp_path / "var/log/qpsmtpd"
    folder.mkdir(parents=True)
    secret = tmp_path / "shadow"
    secret.write_text("root:x\n")
    os.link(secret, folder / "current")
    identity = Identity("", str(tmp_path))
    identity.uid, identity.gid, identity.is_change = 12345, 12345, True

    with pytest.raises(ConfigError, match="current: has a second name: remove it"):
        prepare_log(LogSettings("file"), str(tmp_path), identity)

    assert secret.stat().st_uid == 0
    (folder / "current").unlink()
    prepare_log(LogSettings("file"), str(tmp_path), identity)
    assert (folder / "current").stat().st_uid == 12345


def test_file_that_cannot_be_opened_is_an_error_that_names_the_property(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        ConfigError, match=r"qpsmtpd/current: No such .*: see LogTarget"
    ):
        LogOutlet(LogSettings("file"), str(tmp_path))


def test_same_settings_keep_what_is_open(tmp_path: Path) -> None:
    outlet = LogOutlet(LogSettings("syslog"), str(tmp_path))

    assert outlet.for_settings(LogSettings("syslog")) is outlet
    other = outlet.for_settings(LogSettings())
    assert other is not outlet
    other.close()


# Messages


class Lines:
    """A log target that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, level: int, line: str) -> None:
        self.lines.append(line)

    def tick(self) -> None:
        pass

    def reopen(self) -> None:
        pass


def refusal(connection: Connection, findings: Findings, text: str) -> dict[str, Any]:
    """What the log of messages says of a refusal."""
    target = Lines()
    MessageLog(target).refused(connection, "dnsbl", deny(text), findings)
    (line,) = target.lines
    assert line.isascii()
    assert line.isprintable()
    entry: dict[str, Any] = json.loads(line)
    return entry


def test_refusal_is_told_with_envelope_and_verdicts() -> None:
    connection = Connection("1.7", "192.0.2.1", 25)
    connection.hello = "client.test"
    findings = Findings()
    findings.add(None, "dnsbl", "connect", "fail, naughty, listed by zen")
    findings.add(None, "core", "connect", "no verdict")
    transaction = connection.transaction = Transaction(Address("a", "far.test"))
    transaction.recipients.append(Address("you", "here.test"))
    connection.hook = "rcpt"
    findings.add(transaction, "spf", "mail", "pass")

    entry = refusal(connection, findings, "Listed")

    assert entry.pop("time") > 1_700_000_000
    assert entry == {
        "session": "1.7",
        "remote": "192.0.2.1",
        "port": 25,
        "hello": "client.test",
        "user": "",
        "tls": "",
        "relay_client": False,
        "sender": "a@far.test",
        "recipients": ["you@here.test"],
        "outcome": "refused",
        "hook": "rcpt",
        "plugin": "dnsbl",
        "verdict": "DENY",
        "text": "Listed",
        "verdicts": [
            {
                "plugin": "dnsbl",
                "hook": "connect",
                "result": "fail",
                "text": "naughty, listed by zen",
            },
            {"plugin": "spf", "hook": "mail", "result": "pass", "text": ""},
        ],
    }


def test_verdicts_on_a_message_do_not_leak_into_the_next() -> None:
    findings = Findings()
    first, second = Transaction(Address("a", "b.c")), Transaction(Address("a", "b.c"))
    findings.add(None, "dnsbl", "connect", "pass")
    findings.add(first, "spf", "mail", "fail, no")

    assert len(findings.verdicts(first)) == 2
    assert [one["plugin"] for one in findings.verdicts(second)] == ["dnsbl"]
    findings.add(second, "dkim", "data_post", "skip, not signed")
    assert [one["plugin"] for one in findings.verdicts(second)] == ["dnsbl", "dkim"]


def test_client_cannot_have_us_remember_without_end() -> None:
    findings = Findings()
    for _ in range(5000):
        findings.add(None, "count_unrecognized_commands", "rcpt", "fail, x")

    assert len(findings.verdicts(None)) == 200


@given(st.text(max_size=60))
def test_whatever_a_client_sent_the_object_is_one_harmless_line(text: str) -> None:
    connection = Connection("1.7", "192.0.2.1", 25)
    connection.hello = text

    assert refusal(connection, Findings(), text)["hello"] == text


# The whole filter


@contextlib.contextmanager
def logging_into_a_file(tmp_path: Path) -> Iterator[tuple[Filter, Path]]:
    """Run a filter; return it and its log file."""
    filter = Filter(tmp_path, {"log_target": "file"})
    current = filter.root / "var/log/qpsmtpd/current"
    filter.start()
    try:
        wait_for(current, "serving on")
        yield filter, current
    finally:
        for client in filter.clients:
            client.close()
        filter.process.send_signal(signal.SIGTERM)
        status = filter.wait_until_ended()
    assert status == 0


def test_filter_logs_into_a_file_and_a_signal_begins_a_new_one(tmp_path: Path) -> None:
    with logging_into_a_file(tmp_path) as (filter, current):
        take(filter)
        wait_for(current, "(queue) queue/maildir: pass")
        old = current.with_name("old")
        current.rename(old)

        filter.process.send_signal(signal.SIGUSR1)

        wait_for_file(current)
        take(filter)
        wait_for(current, "(queue) queue/maildir: pass")
    assert "stopped" in current.read_text()
    assert "stopping" not in old.read_text()
    assert all(re.match(STAMP, line) for line in current.read_text().splitlines())
    assert filter.log == ""


def test_file_that_is_moved_away_is_left_by_workers_without_a_signal(
    tmp_path: Path,
) -> None:
    with logging_into_a_file(tmp_path) as (filter, current):
        current.rename(current.with_name("old"))

        wait_for_file(current)

        take(filter)
        wait_for(current, "(queue) queue/maildir: pass")


def test_reload_changes_where_the_log_goes(tmp_path: Path) -> None:
    with Filter(tmp_path) as filter:
        current = filter.root / "var/log/qpsmtpd/current"
        filter.write({"log_target": "file"})
        assert filter.control("reload")["ok"]
        take(filter)
        wait_for(current, "(queue) queue/maildir: pass")
        assert "generation 2 serves" in current.read_text()

        filter.write({})
        assert filter.control("reload")["ok"]

        take(filter)
        filter.wait_for("(queue) queue/maildir: pass")
        filter.wait_for("generation 3 serves")


def test_log_that_cannot_be_opened_refuses_the_reload(tmp_path: Path) -> None:
    with Filter(tmp_path) as filter:
        folder = filter.root / "var/log/qpsmtpd"
        folder.mkdir(parents=True)
        (folder / "current").mkdir()
        filter.write({"log_target": "file"})

        answer = filter.control("reload")

        assert answer["error"] == f"{folder}/current: Is a directory"
        filter.wait_for("reload failed")
        take(filter)
        filter.wait_for("(queue) queue/maildir: pass")


def test_each_message_and_refusal_is_an_object_with_its_verdicts(
    tmp_path: Path,
) -> None:
    with Filter(tmp_path, {"log_format": "json", "loglevel": "5"}) as filter:
        client = filter.connect("127.9.8.7")
        client.begin()
        client.send("Subject: x\r\nMessage-Id: <1@x>\r\n\r\nx\r\n.\r\n")
        assert client.read().startswith("250")
        assert client.say("MAIL FROM:<a@far.test>").startswith("250")
        assert client.say("RCPT TO:<a@elsewhere.test>").startswith("550")
    lines = (filter.root / "var/log/qpsmtpd/messages.json").read_text().splitlines()

    queued, refused = (json.loads(line) for line in lines)
    assert (queued["outcome"], queued["message_id"]) == ("queued", "<1@x>")
    assert queued["recipients"] == ["you@here.test"]
    assert {
        (one["plugin"], one["hook"], one["result"]) for one in queued["verdicts"]
    } == {("rcpt_ok", "rcpt", "pass"), ("queue/maildir", "queue", "pass")}
    assert (refused["outcome"], refused["plugin"]) == ("refused", "rcpt_ok")
    assert [one["result"] for one in refused["verdicts"]] == ["fail"]


def test_signal_does_not_end_a_worker(tmp_path: Path) -> None:
    with Filter(tmp_path) as filter:
        (worker,) = filter.control("status")["workers"]

        os.kill(worker["pid"], signal.SIGUSR1)

        take(filter)
        assert filter.control("status")["workers"][0]["pid"] == worker["pid"]


def take(filter: Filter) -> None:
    """Have the filter take a message."""
    client = filter.connect()
    client.begin()
    client.send("Subject: x\r\n\r\nx\r\n.\r\n")
    assert client.read().startswith("250")
    assert client.say("QUIT").startswith("221")


def wait_for_file(path: Path) -> None:
    wait_for(path, "")


def wait_for(path: Path, text: str) -> None:
    """Wait until a file is there and holds a text."""
    for _ in range(int(SECONDS / 0.02)):
        if path.exists() and text in path.read_text():
            return
        threading.Event().wait(0.02)
    found = path.read_text() if path.exists() else "no file"
    raise AssertionError(f"no {text!r} in: {found}")
