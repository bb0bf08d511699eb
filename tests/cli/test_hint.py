"""A person who changes a property is told which event puts it into force."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support.config import BIN, SECONDS, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.run("smeconf init")
    return machine


def said_at_a_terminal(machine: Machine, *words: str, stdin: str = "") -> str:
    """What a command says on standard error, where that is a terminal."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [BIN / words[0], *words[1:]],
            input=stdin.encode(),
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=machine.environment,
            timeout=SECONDS,
            check=True,
        )
        os.write(theirs, b"\0")  # so that the read below has an end
        said = b""
        while not said.endswith(b"\0"):
            said += os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    return said.decode().replace("\r\n", "\n").rstrip("\0^@")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "config setprop qpsmtpd DNSBL enabled",
            "not in force yet: drives 2 files of email-update; "
            "run signal-event email-update\n",
        ),
        (
            "config setprop qpsmtpd RBLList a.test",
            "not in force yet: drives 1 file of email-update; "
            "run signal-event email-update\n",
        ),
        (
            "db domains set a.test domain",
            "not in force yet: drives 2 files of email-update; "
            "run signal-event email-update\n",
        ),
        ("config setprop qpsmtpd zComment mine", ""),
        ("config setprop qpsmtpd DNSBL disabled", ""),  # it was
        ("config getprop qpsmtpd DNSBL", ""),
    ],
)
def test_change_says_what_remains_to_be_done(
    machine: Machine, words: str, expected: str
) -> None:
    said = said_at_a_terminal(machine, *words.split())

    assert said.removeprefix("qpsmtpd zComment: ") == expected or "warning" in said


def test_batch_says_it_once(machine: Machine) -> None:
    lines = "setprop qpsmtpd DNSBL enabled\nsetprop qpsmtpd RBLList a.test\n"

    said = said_at_a_terminal(machine, "config", "batch", stdin=lines)

    assert said.count("\n") == 1
    assert "drives 2 files of email-update" in said


def test_fragments_and_events_of_the_site_count(machine: Machine) -> None:
    machine.fragment("etc/mine", "10", "{{ qpsmtpd.zMine }}\n")
    machine.event("mine-update", ["etc/mine"])

    said = said_at_a_terminal(machine, "config", "setprop", "qpsmtpd", "zMine", "1")

    assert said.splitlines()[-1] == (
        "not in force yet: drives 1 file of mine-update; run signal-event mine-update"
    )


def test_script_hears_nothing(machine: Machine) -> None:
    assert machine.run("config setprop qpsmtpd DNSBL enabled").errors == ""
