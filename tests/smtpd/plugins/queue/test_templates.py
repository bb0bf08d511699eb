"""What the database makes of the queue: the plugin's line, routes and logins."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.smtpd.loader import load
from tests.support.config import Machine

CONFIG = "var/service/qpsmtpd/config"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.records("DomainName=local.test\nSystemName=mail\n")
    machine.run("smeconf init")
    return machine


def lines(machine: Machine, target: str) -> list[str]:
    text = machine.expand(target)
    return [line for line in text.splitlines() if line and line[0] != "#"]


def queue(machine: Machine) -> list[str]:
    listed = lines(machine, f"{CONFIG}/peers/0")
    return [line for line in listed if line.startswith("queue/")]


HOW = "timeout 60 tls may connections 4"
LOGIN = "login var/service/qpsmtpd/queue_logins"


@pytest.mark.parametrize(
    ("method", "target", "line"),
    [
        ("maildir", "var/my mail", 'queue/maildir "var/my mail"'),
        ("lmtp", "unix:/run/lmtp", f'queue/lmtp "unix:/run/lmtp" {HOW}'),
        (
            "pipe",
            '/bin/x "a b" -- {recipients}',
            r'queue/pipe "/bin/x \"a b\" -- {recipients}" timeout 60',
        ),
        ("smtp-forward", "a:26,b", f'queue/smtp-forward "a:26,b" {HOW} {LOGIN}'),
        ("null", "x", "queue/null"),
    ],
)
def test_method_becomes_a_line_that_the_filter_takes(
    machine: Machine, method: str, target: str, line: str
) -> None:
    machine.run("config", "setprop", "qpsmtpd", "QueueMethod", method)
    machine.run("config", "setprop", "qpsmtpd", "QueueTarget", target)

    machine.run("signal-event email-update")

    assert queue(machine)[-1] == line
    load(str(machine.path(CONFIG)), str(machine.root))


def test_domains_that_are_kept_elsewhere_are_routes(machine: Machine) -> None:
    assert lines(machine, f"{CONFIG}/smtproutes") == []
    machine.run("db domains set own.test domain")
    machine.run("db domains set else.test domain MailServer 192.168.1.20")

    assert lines(machine, f"{CONFIG}/smtproutes") == ["else.test:192.168.1.20"]
    machine.run("config set DelegateMailServer fd00::1")
    assert lines(machine, f"{CONFIG}/smtproutes") == [
        "else.test:192.168.1.20",
        "own.test:[fd00::1]",
    ]


def test_smart_host_takes_the_rest_with_its_login(machine: Machine) -> None:
    machine.run("config set SMTPSmartHost smart.test")
    machine.run("config setprop smtp-auth-proxy PeerPort 587 Userid me Passwd x")
    assert lines(machine, f"{CONFIG}/smtproutes") == [":smart.test:25"]
    assert lines(machine, "var/service/qpsmtpd/queue_logins") == []

    machine.run("config setprop smtp-auth-proxy status enabled")

    assert lines(machine, f"{CONFIG}/smtproutes") == [":smart.test:587"]
    (login,) = lines(machine, "var/service/qpsmtpd/queue_logins")
    assert login == "smart.test:587\tme\tx"


def test_login_is_of_each_server_and_for_root_alone(machine: Machine) -> None:
    for name, value in {
        "QueueMethod": "smtp-forward",
        "QueueTarget": "a.test:587,b.test",
        "QueueUser": "me",
        "QueuePassword": "a b#",
    }.items():
        machine.run("config", "setprop", "qpsmtpd", name, value)

    machine.run("signal-event email-update")

    file = "var/service/qpsmtpd/queue_logins"
    assert lines(machine, file) == ["a.test:587\tme\ta b#", "b.test\tme\ta b#"]
    facts = machine.facts(file)
    assert facts is not None
    assert facts.mode == 0o600


@pytest.mark.parametrize(
    "event", ["domain-create", "domain-modify", "domain-delete", "ip-change"]
)
def test_change_of_domains_brings_new_routes(machine: Machine, event: str) -> None:
    machine.run("db domains set else.test domain MailServer 192.168.1.20")

    machine.run("signal-event", event, "else.test")

    installed = machine.read(f"{CONFIG}/smtproutes").splitlines()
    assert installed[-1] == "else.test:192.168.1.20"
