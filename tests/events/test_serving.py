"""The filter through events: it serves the old whole or the new one, and always."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.config import Machine
from tests.support.faults import FaultySystem, is_killed, signal_event
from tests.support.gateway import COMMANDS, Gateway
from tests.support.smtp import Client


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path) as gateway:
        yield gateway


def greet_with(gateway: Gateway, text: str) -> None:
    """Change what the filter says first; two files say it."""
    gateway.run("config", "setprop", "smtpd", "Greeting", text, "HeloHost", text)


def greeting(gateway: Gateway) -> str:
    with Client(gateway.port) as client:
        return client.read().split()[1]


def kill_event(gateway: Gateway) -> None:
    """Run email-update until its files are renamed, and no further."""
    machine = Machine(gateway.root)
    renamed: list[int] = []

    def die(number: int, name: str) -> None:
        renamed.extend([number] * (name == "rename"))
        # The name of the event that runs, me, and smtpgreeting.
        if len(renamed) == 3 and name == "sync":
            os.kill(os.getpid(), signal.SIGKILL)

    def act(_: object) -> None:
        signal_event(machine, "email-update", FaultySystem(die))

    assert is_killed(act, at=0)


def start(gateway: Gateway) -> None:
    """Start the filter itself: ``smeconf up`` would mend what it finds."""
    with gateway.log_path.open("ab") as log:
        gateway._filter = subprocess.Popen(
            [COMMANDS / "smeconf-smtpd"],
            env=gateway.environment,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    gateway.wait_for("serving on")


def test_filter_that_starts_in_an_unfinished_install_serves_the_old_files(
    gateway: Gateway,
) -> None:
    greet_with(gateway, "old.test")
    gateway.run("smeconf", "init")
    greet_with(gateway, "new.test")
    kill_event(gateway)
    file = gateway.root / "var/service/qpsmtpd/config/smtpgreeting"
    assert "new.test" in file.read_text()

    start(gateway)

    assert greeting(gateway) == "old.test"
    gateway.send()

    repaired = gateway.run("smeconf", "doctor", "--repair", check=False)
    assert "its files were put back as they were" in repaired.stderr
    assert greeting(gateway) == "old.test"

    gateway.email_update()
    assert greeting(gateway) == "new.test"
    assert gateway.run("smeconf", "doctor").stdout == "all is well\n"


def test_filter_that_runs_through_a_killed_event_serves_on(gateway: Gateway) -> None:
    """And takes the old files, should it be told to load before they are mended."""
    greet_with(gateway, "old.test")
    gateway.up()
    greet_with(gateway, "new.test")

    kill_event(gateway)

    assert greeting(gateway) == "old.test"
    gateway.run("smeconf-smtpd", "--reload")
    assert greeting(gateway) == "old.test"
    said = gateway.email_update().stderr
    assert said.endswith("had been cut off: its files were put back as they were\n")
    assert greeting(gateway) == "new.test"


def test_doctor_says_that_the_filter_serves_another_configuration(
    gateway: Gateway,
) -> None:
    gateway.up()
    name = gateway.root / "var/service/qpsmtpd/config.generation"
    name.write_text('{"id": "another"}\n')

    found = gateway.run("smeconf", "doctor", check=False)

    assert found.returncode == 1
    assert found.stdout == (
        "wrong  qpsmtpd serves another configuration than is installed: "
        "signal-event email-update\n"
    )
    greet_with(gateway, "new.test")
    gateway.email_update()
    assert gateway.run("smeconf", "doctor").stdout == "all is well\n"


class Sender:
    """Sends messages all the time, each over a connection of its own.

    ``acknowledged`` are their subjects, ``faults`` what went wrong; ``installed`` is
    the number of the newest event that has returned.
    """

    def __init__(self, port: int) -> None:
        self.acknowledged: list[str] = []
        self.faults: list[str] = []
        self.installed = 0
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_all)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send_all(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                self._send(f"message-{number}.")
            except Exception as error:
                self.faults.append(f"{type(error).__name__}: {error}")

    def _send(self, subject: str) -> None:
        installed = self.installed
        with Client(self._port, "127.9.8.7") as client:
            greeted = client.read()
            served = int(greeted.split()[1].removeprefix("g").removesuffix(".test"))
            if served < installed:
                self.faults.append(f"event {installed} has returned: {greeted}")
            for line in ("EHLO c.test", "MAIL FROM:<a@far.test>"):
                self._say(client, line, "250")
            self._say(client, "RCPT TO:<user@local.test>", "250")
            self._say(client, "DATA", "354")
            self._say(client, f"Subject: {subject}\r\n\r\nx\r\n.", "250")
            self.acknowledged.append(subject)
            self._say(client, "QUIT", "221")

    def _say(self, client: Client, line: str, expected: str) -> None:
        reply = client.say(line)
        if not reply.startswith(expected):
            self.faults.append(f"{line!r}: {reply!r}")


def test_twenty_events_under_load_lose_no_connection_and_no_message(
    gateway: Gateway,
) -> None:
    greet_with(gateway, "g0.test")
    gateway.up()
    machine = Machine(gateway.root)
    with Sender(gateway.port) as sender:
        for number in range(1, 21):
            greet_with(gateway, f"g{number}.test")
            assert machine.signal("email-update") == []
            sender.installed = number
            for _ in range(4):  # more than there are workers
                assert greeting(gateway) == f"g{number}.test"

    assert sender.faults == []
    assert len(sender.acknowledged) > 100
    delivered = "".join(gateway.delivered())
    assert [s for s in sender.acknowledged if f"Subject: {s}\n" not in delivered] == []
