"""The process: reload, workers that die, stopping, and its control socket."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.smtp import MAIL, SECONDS, Client, Filter, free_port, mails

NEW = {"smtpgreeting": "new.test"}
GREETING = "220 mx.test ESMTP"
NEW_GREETING = "220 new.test ESMTP"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Filter]:
    with Filter(tmp_path) as filter:
        yield filter


def wait_until_gone(*pids: int) -> None:
    """Wait until no process of these runs; none need be a child of ours."""
    deadline = time.monotonic() + SECONDS
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([handle], [], [], left)[0], f"{pid} still runs"
        finally:
            os.close(handle)


def worker_ids(filter: Filter) -> list[int]:
    return [one["pid"] for one in filter.control("status")["workers"]]


def finish(client: Client, text: str = MAIL) -> str:
    client.send(text + ".\r\n")
    return client.read()


# Sessions


def test_mail_is_taken_over_the_network(running: Filter) -> None:
    client = running.connect("127.0.0.9")
    client.begin()

    assert finish(client).startswith("250 2.0.0 Queued! ")
    assert client.say("QUIT").startswith("221")
    assert client.read() == ""
    (mail,) = running.mails
    assert b"Received: from client.test ([127.0.0.9])" in mail


def test_half_closed_client_is_answered(running: Filter) -> None:
    client = running.connect()
    client.begin()
    client.send(MAIL + ".\r\n")
    client.sock.shutdown(1)

    assert client.read().startswith("250 2.0.0 Queued!")
    assert client.read() == ""


def test_client_that_crashes_leaves_nothing(running: Filter) -> None:
    for text in ("", "Subject: x\r\n\r\nx\r\n", "x\r\n.\r"):
        client = running.connect()
        client.begin()
        client.send(text)
        client.reset()

    client = running.connect()
    client.begin()
    assert finish(client).startswith("250")
    assert len(running.mails) == 1


def test_silent_client_is_told_to_go(tmp_path: Path) -> None:
    with Filter(tmp_path, {"timeoutsmtpd": "1"}) as filter:
        client = filter.connect()
        assert client.read() == GREETING

        assert client.read() == "421 4.4.2 Too long silent, closing"
        assert client.read() == ""


def test_client_gets_the_plugins_of_its_address(tmp_path: Path) -> None:
    files = {
        "peers/0": "rcpt_ok\nqueue/maildir var/world",
        "peers/local": "relay\nrcpt_ok\nqueue/maildir var/local",
        "relayclients": "127.0.0.2",
    }
    with Filter(tmp_path, files) as filter:
        for source, folder in (("127.0.0.1", "world"), ("127.0.0.2", "local")):
            client = filter.connect(source)
            client.begin()
            assert finish(client).startswith("250")
            assert len(mails(filter.root / "var" / folder)) == 1


# Reload


def test_reload_gives_new_sessions_the_new_configuration(running: Filter) -> None:
    old = running.connect()
    old.begin()
    running.write(NEW)

    answer = running.control("reload")

    assert (answer["ok"], answer["error"], answer["generation"]) == (True, "", 2)
    new = running.connect()
    assert new.read() == NEW_GREETING
    assert finish(old).startswith("250")
    assert old.say("MAIL FROM:<b@far.test>").startswith("250")
    assert len(running.mails) == 1


def test_signal_reloads_too(running: Filter) -> None:
    running.write(NEW)

    running.process.send_signal(signal.SIGHUP)
    running.wait_for("generation 2 serves on")

    assert running.connect().read() == NEW_GREETING


def test_old_workers_end_with_their_last_session(running: Filter) -> None:
    (old,) = worker_ids(running)
    client = running.connect()
    client.read()

    running.control("reload")

    assert old in worker_ids(running)
    assert client.say("QUIT").startswith("221")
    wait_until_gone(old)
    workers = worker_ids(running)
    assert len(workers) == 1
    assert old not in workers


def test_reload_may_change_where_it_listens(running: Filter) -> None:
    other = free_port()
    listen = f"127.0.0.1@{running.port}\n127.0.0.1@{other}"
    running.write({"listen": listen})
    assert running.control("reload")["ok"]
    with Client(other) as client:
        assert client.read() == GREETING
    old = running.connect()
    old.begin()

    running.write({"listen": f"127.0.0.1@{other}"})
    assert running.control("reload")["ok"]

    with pytest.raises(ConnectionRefusedError):
        running.connect()
    assert finish(old).startswith("250")


def test_wrong_configuration_is_refused_and_the_old_one_serves_on(
    running: Filter,
) -> None:
    old = running.connect()
    old.begin()
    running.write({**NEW, "plugins": "rcpt_ok\nqueue/maildri x"})

    answer = running.control("reload")

    fault = "plugins:2: there is no plugin queue/maildri; did you mean queue/maildir?"
    assert answer["ok"] is False
    assert answer["error"] == f"{running.directory}/{fault}"
    assert answer["generation"] == 1
    assert fault in running.wait_for("reload refused")
    assert running.connect().read() == GREETING
    assert finish(old).startswith("250")


def test_reload_whose_port_is_taken_is_refused(running: Filter) -> None:
    with Filter(running.directory.parent / "other") as other:
        listen = f"127.0.0.1@{running.port}\n127.0.0.1@{other.port}"
        running.write({**NEW, "listen": listen})

        answer = running.control("reload")

    why = f"cannot listen on 127.0.0.1:{other.port}: Address already in use"
    assert answer["error"] == why
    assert running.connect().read() == GREETING


def test_no_connection_is_refused_or_cut_by_reloads_under_load(tmp_path: Path) -> None:
    faults: list[object] = []
    counts = [0] * 4
    stop = threading.Event()
    port = free_port()

    def load(number: int) -> None:
        while not stop.is_set():
            try:
                with Client(port) as client:
                    client.begin()
                    reply = finish(client)
                    assert reply.startswith("250"), reply
                    assert client.say("QUIT").startswith("221")
                counts[number] += 1
            except Exception as error:
                faults.append(error)

    files = {"plugins": "rcpt_ok\nqueue/null", "workers": "2"}
    with Filter(tmp_path, files, port=port) as filter:
        threads = [threading.Thread(target=load, args=(n,)) for n in range(len(counts))]
        for thread in threads:
            thread.start()
        before = sum(counts)
        for number in range(8):
            filter.write({**files, "smtpgreeting": f"g{number}.test"})
            assert filter.control("reload")["ok"]
        stop.set()
        for thread in threads:
            thread.join()
        assert filter.control("status")["generation"] == 9

    assert faults == []
    assert sum(counts) > before + 20


# Workers


def test_worker_that_is_killed_is_replaced(running: Filter) -> None:
    (old,) = worker_ids(running)

    os.kill(old, signal.SIGKILL)
    running.wait_for(f"worker {old} died (signal 9), replacing it")

    assert running.connect().read() == GREETING
    workers = worker_ids(running)
    assert len(workers) == 1
    assert old not in workers


def test_replaced_worker_takes_part_in_reloads(running: Filter) -> None:
    (old,) = worker_ids(running)
    os.kill(old, signal.SIGKILL)
    running.wait_for("replacing it")
    assert running.connect().read() == GREETING
    running.write(NEW)

    assert running.control("reload")["ok"]

    assert running.connect().read() == NEW_GREETING


def test_as_many_workers_serve_as_are_set(tmp_path: Path) -> None:
    with Filter(tmp_path, {"workers": "3"}) as filter:
        assert len(worker_ids(filter)) == 3


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_a_message_finish(running: Filter, number: int) -> None:
    client = running.connect()
    idle = running.connect()
    idle.read()
    client.begin()
    client.send("Subject: late\r\n")

    running.process.send_signal(number)

    assert idle.read() == "421 4.3.2 Shutting down, try again later"
    assert idle.read() == ""
    assert finish(client, "\r\nstill here\r\n").startswith("250")
    assert client.read() == "421 4.3.2 Shutting down, try again later"
    assert running.process.wait(SECONDS) == 0
    (mail,) = running.mails
    assert mail.endswith(b"Subject: late\n\nstill here\n")
    assert not (running.root / "run/qpsmtpd/control").exists()
    assert not (running.root / "run/qpsmtpd/qpsmtpd.pid").exists()


def test_waiting_for_a_message_costs_no_processor_time(tmp_path: Path) -> None:
    """One worker ends at once; the other has a message to finish."""
    with Filter(tmp_path, {"workers": "2"}) as filter:
        client = filter.connect()
        client.begin()

        def ticks() -> int:
            stat = Path(f"/proc/{filter.process.pid}/stat").read_text()
            return sum(map(int, stat.rpartition(")")[2].split()[11:13]))

        before = ticks()
        filter.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            filter.process.wait(1)

        assert ticks() - before < 30
        assert finish(client).startswith("250")


def test_stop_on_request_ends_it(running: Filter) -> None:
    assert running.control("stop")["ok"]

    assert running.process.wait(SECONDS) == 0
    assert "stopped" in running.wait_for("stopped")


def test_workers_of_a_killed_master_end_by_themselves(tmp_path: Path) -> None:
    filter = Filter(tmp_path)
    filter.start()
    filter.wait_for("serving on")
    workers = worker_ids(filter)
    client = filter.connect()
    client.begin()

    filter.process.kill()
    filter.process.wait(SECONDS)

    try:
        assert finish(client).startswith("250")
        client.close()
        wait_until_gone(*workers)
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        filter.wait_until_ended()
    with pytest.raises(ConnectionRefusedError):
        filter.connect()
    with Filter(tmp_path, port=filter.port) as second:
        assert second.connect().read() == GREETING
        assert len(second.mails) == 1


# Beginnings that fail


def fails(filter: Filter) -> list[str]:
    """Start it; it must end with status 1.  Return what it said."""
    filter.start()
    assert filter.wait_until_ended() == 1
    return filter.log.splitlines()


def test_second_filter_of_one_root_is_refused(running: Filter, tmp_path: Path) -> None:
    second = Filter(tmp_path / "second", root=running.root)

    (line,) = fails(second)

    pid = running.process.pid
    assert line.endswith(f"run/qpsmtpd/qpsmtpd.pid: already running, process {pid}")
    assert running.connect().read() == GREETING
    assert running.control("status")["pid"] == pid


def test_port_that_is_taken_is_an_error_in_one_line(
    running: Filter, tmp_path: Path
) -> None:
    second = Filter(tmp_path / "second", port=running.port)

    assert fails(second) == [
        f"smeconf-smtpd: cannot listen on 127.0.0.1:{running.port}: "
        "Address already in use"
    ]


def test_wrong_configuration_is_an_error_with_every_fault(tmp_path: Path) -> None:
    filter = Filter(tmp_path, {"plugins": "rcptok\nrelay onyl 1"})

    assert fails(filter) == [
        f"smeconf-smtpd: {tmp_path}/config/plugins:1: there is no plugin rcptok; "
        "did you mean rcpt_ok?",
        f"smeconf-smtpd: {tmp_path}/config/plugins:2: no option onyl; there are: only",
    ]


# The control socket


def test_control_socket_tells_the_status(running: Filter) -> None:
    answer = running.control("status")

    told = ("ok", "error", "pid", "generation", "configuration", "listen")
    assert {name: answer[name] for name in told} == {
        "ok": True,
        "error": "",
        "pid": running.process.pid,
        "generation": 1,
        "configuration": "",
        "listen": [f"127.0.0.1:{running.port}"],
    }
    assert answer["up_seconds"] >= 0
    assert answer["since"].startswith("20")
    assert answer["sessions"] == 0
    assert answer["memory_bytes"] > 1_000_000
    assert answer["counts"]["messages"] == 0
    assert answer["rates_a_minute"]["messages"] == {"1": 0.0, "5": 0.0, "15": 0.0}
    (worker,) = answer["workers"]
    assert worker["pid"] != running.process.pid
    assert (worker["generation"], worker["sessions"]) == (1, 0)
    assert worker["memory_bytes"] > 1_000_000
    assert worker["memory_kind"] in ("PSS", "RSS")


def test_answer_to_an_order_is_short(running: Filter) -> None:
    assert set(running.control("reload")) == {
        *("ok", "error", "pid", "generation", "configuration", "listen"),
    }


def test_control_socket_names_its_words(running: Filter) -> None:
    answer = running.control("restart")

    assert answer["ok"] is False
    assert answer["error"] == "the words are reload, status and stop"


def test_control_socket_is_its_owners_alone(running: Filter) -> None:
    mode = (running.root / "run/qpsmtpd/control").stat().st_mode

    assert mode & 0o077 == 0


def test_warnings_of_plugins_are_said_at_start_and_reload(tmp_path: Path) -> None:
    with Filter(tmp_path, {"plugins": "rcpt_ok\nqueue/null"}) as filter:
        filter.wait_for("warning: queue/null: mail is accepted and THROWN AWAY")
        filter.control("reload")
        filter.wait_for("warning: queue/null: mail is accepted", times=2)
