"""How the filter is steered: what it is asked, and what is made of its answer."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from smeconf.services import ServiceError, control, find_service, greeting, process
from smeconf.services.own import OwnDaemon
from smeconf.services.service import Status
from tests.support.config import FakeDaemon, Machine
from tests.support.smtp import Client, free_port, write_directory

CONFIG = "var/service/qpsmtpd/config"
LOG = "var/log/qpsmtpd/current"
WAITS = "qpsmtpd is not running: what was installed waits for it"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no greeting be waited for as long as in life."""
    monkeypatch.setattr(greeting, "TRY_SECONDS", 0.3)
    monkeypatch.setattr(greeting, "ALL_SECONDS", 0.6)


def adjust(machine: Machine, *actions: str, is_enabled: bool = True) -> str:
    return OwnDaemon("qpsmtpd", machine.paths).adjust(actions, is_enabled)


def failure(machine: Machine, *actions: str) -> str:
    """Return why an action failed: one line."""
    with pytest.raises(ServiceError) as caught:
        adjust(machine, *actions)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def install(machine: Machine, id: str) -> None:
    machine.write(f"{CONFIG}.generation", f'{{"id": "{id}"}}\n')


# What it is asked


@pytest.mark.parametrize(
    ("action", "is_enabled", "requests"),
    [
        ("restart", True, ["reload"]),
        ("reload", True, ["reload"]),
        ("sigusr1", True, ["reload"]),
        ("sigterm", True, ["reload"]),
        ("start", True, ["status", "reload"]),
        ("up", True, ["status", "reload"]),
        ("stop", True, ["stop"]),
        ("down", True, ["stop"]),
        ("restart", False, ["stop"]),
        ("start", False, ["stop"]),
    ],
)
def test_words_of_sme_become_requests(
    machine: Machine, action: str, is_enabled: bool, requests: list[str]
) -> None:
    with FakeDaemon(machine) as daemon:
        said = adjust(machine, action, is_enabled=is_enabled)

    assert daemon.requests == requests
    assert bool(said) is (requests == ["stop"])


def test_text_of_an_action_file_is_taken_as_well(machine: Machine) -> None:
    with FakeDaemon(machine) as daemon:
        OwnDaemon("qpsmtpd", machine.paths).adjust("# by day\nrestart\nsighup\n", True)

    assert daemon.requests == ["reload"]


def test_service_that_stops_is_told_of(machine: Machine) -> None:
    with FakeDaemon(machine):
        said = adjust(machine, "restart", is_enabled=False)
    assert said == "qpsmtpd is disabled: it stops"
    machine.path("run/qpsmtpd/control").unlink()

    with FakeDaemon(machine):
        said = adjust(machine, "stop")
    assert said == "qpsmtpd was told to stop: it stops"


def test_filter_that_stops_is_waited_for(machine: Machine) -> None:
    with (
        subprocess.Popen(["sleep", "0.3"]) as master,
        FakeDaemon(machine, lambda _: {"pid": master.pid}),
    ):
        said = adjust(machine, "stop")

        assert master.poll() == 0
        assert said == "qpsmtpd was told to stop: it stops"


def test_filter_with_long_sessions_is_not_waited_for_for_ever(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "END_SECONDS", 0.1)

    with (
        subprocess.Popen(["sleep", "30"]) as master,
        FakeDaemon(machine, lambda _: {"pid": master.pid}),
    ):
        said = adjust(machine, "stop")
        master.kill()

    assert said == ("qpsmtpd was told to stop: it stops when its sessions have ended")


def test_service_that_does_not_run_is_told_of(machine: Machine) -> None:
    assert adjust(machine, "restart") == WAITS
    assert adjust(machine, "sighup") == WAITS
    assert adjust(machine, "stop") == ""
    assert adjust(machine, "restart", is_enabled=False) == ""
    assert adjust(machine, "start", is_enabled=False) == ""


def test_socket_that_a_killed_filter_left_is_one_that_does_not_run(
    machine: Machine,
) -> None:
    with FakeDaemon(machine):
        pass
    assert machine.path("run/qpsmtpd/control").is_socket()

    assert adjust(machine, "restart") == WAITS


def test_word_for_booting_has_no_meaning_without_systemd(machine: Machine) -> None:
    assert adjust(machine, "enable") == (
        "qpsmtpd: enable has no meaning without systemd"
    )


def test_word_that_nobody_knows_is_refused_before_anything_is_asked(
    machine: Machine,
) -> None:
    with FakeDaemon(machine) as daemon:
        assert failure(machine, "restart", "explode") == "qpsmtpd: no action explode"

    assert daemon.requests == []


def test_path_may_be_longer_than_a_socket_address(tmp_path: Path) -> None:
    machine = Machine(tmp_path / ("deep" * 30))

    with FakeDaemon(machine) as daemon:
        assert adjust(machine, "restart") == ""

    assert daemon.requests == ["reload"]


def test_service_that_nothing_can_steer_is_an_error(machine: Machine) -> None:
    with pytest.raises(ServiceError, match=r"^httpd: no way is known to steer"):
        find_service("httpd", machine.paths)


# What it answers


def test_refusal_gives_the_reason_of_the_filter(machine: Machine) -> None:
    answer = b'{"ok": false, "error": "plugins:3: no plugin quux"}\n'

    with FakeDaemon(machine, lambda _: answer):
        reason = failure(machine, "restart")

    assert reason == "qpsmtpd keeps its old configuration: plugins:3: no plugin quux"


def test_refusal_without_a_reason_is_a_refusal(machine: Machine) -> None:
    with FakeDaemon(machine, lambda _: b'{"ok": false}\n'):
        assert "keeps its old configuration" in failure(machine, "restart")


def test_answer_that_takes_a_while_is_waited_for(machine: Machine) -> None:
    def slow(request: str) -> dict[str, object]:
        time.sleep(0.2)
        return {}

    with FakeDaemon(machine, slow):
        assert adjust(machine, "restart") == ""


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b'{"ok": tr',
        b"\xff\xfe\x00garbage\n",
        b"[]\n",
        b"null\n",
        b'"ok"\n',
        b"{}\n",
        b'{"error": "no"}\n',
        b'{"ok": "yes"}\n',
    ],
)
def test_answer_that_is_none_is_an_error(machine: Machine, answer: bytes) -> None:
    """Never taken for consent, and never for a filter that does not run."""
    with FakeDaemon(machine, lambda _: answer):
        reason = failure(machine, "restart")

    assert reason.startswith("qpsmtpd did not answer reload: ")


def test_silent_filter_is_not_waited_for_for_ever(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.1)

    with FakeDaemon(machine, lambda _: None):
        reason = failure(machine, "restart")

    assert reason == "qpsmtpd did not answer reload: timed out"


# The proof: what was installed serves


@pytest.mark.parametrize("served", ["", "one"])
def test_filter_that_serves_what_is_installed_is_believed(
    machine: Machine, served: str
) -> None:
    if served:
        install(machine, served)

    with FakeDaemon(machine, lambda _: {"configuration": served}) as daemon:
        assert adjust(machine, "restart") == ""

    assert daemon.requests == ["reload"]


@pytest.mark.parametrize(
    ("installed", "served", "reason"),
    [
        ("two", "one", "qpsmtpd serves configuration one, not two"),
        ("two", "", "qpsmtpd serves configuration (none), not two"),
        ("", "one", "qpsmtpd serves configuration one, not (none)"),
    ],
)
def test_filter_that_serves_another_configuration_fails(
    machine: Machine, installed: str, served: str, reason: str
) -> None:
    if installed:
        install(machine, installed)

    with FakeDaemon(machine, lambda _: {"configuration": served}) as daemon:
        assert failure(machine, "restart") == reason

    assert daemon.requests == ["reload", "reload"]


def test_configuration_that_was_installed_meanwhile_is_asked_for_again(
    machine: Machine,
) -> None:
    served = iter(["one", "two"])
    install(machine, "two")

    with FakeDaemon(machine, lambda _: {"configuration": next(served)}) as daemon:
        assert adjust(machine, "restart") == ""

    assert daemon.requests == ["reload", "reload"]


def test_filter_of_an_older_version_is_believed_and_said(machine: Machine) -> None:
    with FakeDaemon(machine, lambda _: {"configuration": None}):
        assert adjust(machine, "restart") == ""
    machine.path("run/qpsmtpd/control").unlink()
    install(machine, "two")

    with FakeDaemon(machine, lambda _: {"configuration": None}):
        said = adjust(machine, "restart")

    assert said == (
        "qpsmtpd is of an older version: stop and start it to be sure that it serves "
        "what was installed"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id": 1}'])
def test_generation_that_names_nothing_is_an_error(machine: Machine, text: str) -> None:
    path = machine.write(f"{CONFIG}.generation", text)

    with FakeDaemon(machine, lambda _: {"configuration": ""}):
        reason = failure(machine, "restart")

    assert reason == f"{path}: names no configuration: run the event again"


# The proof: it greets


@pytest.mark.parametrize(
    "said",
    [
        b"220 mx.test ESMTP\r\n",
        b"220-mx.test\r\n220 at your service\r\n",
        b"220 \n",
        b"220\r\n",
        b"421 4.7.0 Too many connections\r\n",
        b"450 4.7.1 Later\r\n",
        b"554 5.7.1 No mail from you\r\n",
    ],
)
def test_any_greeting_says_that_the_filter_serves(
    machine: Machine, said: bytes
) -> None:
    with FakeDaemon(machine, greetings=[said]) as daemon:
        assert adjust(machine, "restart") == ""

    assert daemon.heard == [b"QUIT\r\n"]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "no greeting within 0.3 s"),
        (b"22", "no greeting within 0.3 s"),
        (b"220-first\r\n", "no greeting within 0.3 s"),
        (b"", "Connection reset by peer"),
        (b"HTTP/1.1 200 OK\r\n", "it said b'HTTP/1.1 200 OK\\r\\n'"),
        (b"250 ok\r\n", "it said b'250 ok\\r\\n'"),
        (b"\xff\x00\r\n", "it said b'\\xff\\x00\\r\\n'"),
    ],
)
def test_port_that_does_not_greet_fails(
    machine: Machine, said: bytes | None, why: str
) -> None:
    with FakeDaemon(machine, greetings=[said]) as daemon:
        reason = failure(machine, "restart")

    assert reason == f"qpsmtpd does not greet on 127.0.0.1@{daemon.port}: {why}"


@pytest.mark.usefixtures("hasty")
def test_port_that_nobody_listens_on_fails(machine: Machine) -> None:
    port = free_port()
    listen = {"listen": [f"127.0.0.1:{port}"]}

    with FakeDaemon(machine, lambda _: listen):
        reason = failure(machine, "restart")

    assert reason == f"qpsmtpd does not greet on 127.0.0.1@{port}: Connection refused"


def test_port_that_resets_at_first_is_tried_again(machine: Machine) -> None:
    with FakeDaemon(machine, greetings=[b"", b"", b"220 mx.test\r\n"]):
        assert adjust(machine, "restart") == ""


@pytest.mark.usefixtures("hasty")
def test_every_address_must_greet(machine: Machine) -> None:
    port = free_port()

    with FakeDaemon(machine) as daemon:
        good = f"127.0.0.1:{daemon.port}"
        daemon.answer = lambda _: {"listen": [good, f"127.0.0.2:{port}"]}
        reason = failure(machine, "restart")

    assert reason.startswith(f"qpsmtpd does not greet on 127.0.0.2@{port}: ")
    assert daemon.heard == [b"QUIT\r\n"]


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "127.0.0.1"])
def test_filter_on_all_addresses_is_greeted(machine: Machine, host: str) -> None:
    with FakeDaemon(machine) as daemon:
        daemon.answer = lambda _: {"listen": [f"{host}:{daemon.port}"]}
        assert adjust(machine, "restart") == ""

    assert daemon.heard == [b"QUIT\r\n"]


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("*", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("[::]", "::1"),
        ("[2001:db8::1]", "2001:db8::1"),
    ],
)
def test_all_addresses_are_reached_through_the_loopback(
    machine: Machine, host: str, near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[greeting.Address] = []
    monkeypatch.setattr(greeting, "_await_greeting", asked.append)

    with FakeDaemon(machine, lambda _: {"listen": [f"{host}:2525"]}):
        adjust(machine, "restart")

    assert asked == [(near, 2525)]


@pytest.mark.parametrize("listen", [None, [], "x", ["x"], [":"], [{"tls": True}]])
def test_filter_that_does_not_say_where_it_listens_fails(
    machine: Machine, listen: object
) -> None:
    with FakeDaemon(machine, lambda _: {"listen": listen}):
        assert failure(machine, "restart").startswith(
            "qpsmtpd does not say where it listens"
        )


# Status


def test_status_tells_process_and_configuration(machine: Machine) -> None:
    facts = {"pid": 17, "configuration": "one", "listen": ["127.0.0.1:25", "[::1]:25"]}

    with FakeDaemon(machine, lambda _: facts):
        status = OwnDaemon("qpsmtpd", machine.paths).status()

    assert status == Status(
        True, 17, "generation 2 serves on 127.0.0.1:25, [::1]:25", "one"
    )


def test_status_of_an_older_filter_knows_no_configuration(machine: Machine) -> None:
    with FakeDaemon(machine, lambda _: {"configuration": None}):
        assert OwnDaemon("qpsmtpd", machine.paths).status().configuration is None


def test_status_of_what_does_not_run(machine: Machine) -> None:
    status = OwnDaemon("qpsmtpd", machine.paths).status()

    assert status == Status(False, None, "is not running", None)


# The real one


@pytest.fixture
def port(machine: Machine) -> Iterator[int]:
    """A machine with a configuration directory; its filter ends with the test."""
    port = free_port()
    files = {
        "me": "mx.test",
        "listen": f"127.0.0.1@{port}",
        "workers": "1",
        "plugins": "rcpt_ok\nqueue/null",
    }
    machine.path(CONFIG).mkdir(parents=True)
    write_directory(machine.path(CONFIG), files)
    yield port
    pid = process.find_master("qpsmtpd", machine.paths)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        reap(pid)


def reap(pid: int) -> None:
    """Take leave of a filter: here its parent lives on."""
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def running(machine: Machine) -> int:
    pid = OwnDaemon("qpsmtpd", machine.paths).status().pid
    assert pid is not None
    assert process.find_master("qpsmtpd", machine.paths) == pid
    return pid


def test_filter_is_started_and_stopped(machine: Machine, port: int) -> None:
    assert adjust(machine, "start") == "qpsmtpd is started"

    pid = running(machine)
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    log = machine.path(LOG)
    assert stat.S_IMODE(log.stat().st_mode) == 0o640
    assert f"serving on 127.0.0.1:{port}" in log.read_text()
    with Client(port) as client:
        assert client.read().startswith("220 ")
        assert client.say("QUIT").startswith("221")

    assert adjust(machine, "start") == ""
    assert running(machine) == pid
    assert adjust(machine, "restart") == ""
    assert running(machine) == pid
    assert "generation 3 serves" in log.read_text()

    assert adjust(machine, "stop") == "qpsmtpd was told to stop: it stops"
    reap(pid)
    assert process.find_master("qpsmtpd", machine.paths) is None
    assert adjust(machine, "restart") == WAITS


def test_filter_that_hangs_is_killed_and_started_anew(
    machine: Machine, port: int
) -> None:
    adjust(machine, "start")
    pid = running(machine)
    os.kill(pid, signal.SIGSTOP)

    said = adjust(machine, "kill")

    reap(pid)
    assert said == "qpsmtpd was killed; qpsmtpd is started"
    assert running(machine) != pid


def test_filter_that_cannot_start_gives_its_last_words(
    machine: Machine, port: int
) -> None:
    machine.write(LOG, "an old line\n", 0o640)
    path = machine.write(f"{CONFIG}/plugins", "rcpt_ok\nquux\n")

    reason = failure(machine, "start")

    assert reason.startswith(f"qpsmtpd does not start: {path}:2: ")
    assert machine.read(LOG).startswith("an old line\n")


def test_filter_that_does_not_serve_in_time_is_ended(
    machine: Machine, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    spawn = process._spawn
    monkeypatch.setattr(
        process, "_spawn", lambda *words: started.append(spawn(*words)) or started[0]
    )
    monkeypatch.setattr(process, "START_SECONDS", 0.0)

    reason = failure(machine, "start")

    assert reason.startswith("qpsmtpd does not start: ")
    assert started[0].returncode is not None


def test_log_is_not_written_through_a_link(machine: Machine, port: int) -> None:
    elsewhere = machine.write("etc/passwd", "root\n")
    machine.path(LOG).parent.mkdir(parents=True)
    machine.path(LOG).symlink_to(elsewhere)

    reason = failure(machine, "start")

    assert reason == f"{machine.path(LOG)}: Too many levels of symbolic links"
    assert elsewhere.read_text() == "root\n"


def test_log_is_not_written_to_a_pipe(machine: Machine, port: int) -> None:
    machine.path(LOG).parent.mkdir(parents=True)
    os.mkfifo(machine.path(LOG))

    assert failure(machine, "start") == (
        f"{machine.path(LOG)}: is not a file to log to"
    )


def test_number_in_a_file_that_nobody_locks_is_not_killed(machine: Machine) -> None:
    """It may be that of any process by now, even of one that has the file open."""
    path = machine.write("run/qpsmtpd/qpsmtpd.pid", "")
    with path.open() as file, subprocess.Popen(["sleep", "30"], stdin=file) as other:
        path.write_text(f"{other.pid}\n")

        assert not process.kill_master("qpsmtpd", machine.paths)

        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("text", ["", "x", "0\n", "-1\n", "99999999\n", "\xff"])
def test_file_that_names_no_process_means_none(machine: Machine, text: str) -> None:
    machine.write("run/qpsmtpd/qpsmtpd.pid", text)

    assert process.find_master("qpsmtpd", machine.paths) is None
