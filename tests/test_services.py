"""How the filter is steered: what it is asked, and what is made of its answer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from smeconf import services
from smeconf.services import OwnDaemon, ServiceError, find_service
from tests.support.config import FakeDaemon, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def adjust(machine: Machine, action: str = "restart", is_enabled: bool = True) -> str:
    return OwnDaemon("qpsmtpd", machine.paths).adjust(action, is_enabled)


@pytest.mark.parametrize(
    ("action", "is_enabled", "request_made"),
    [
        ("restart", True, "reload"),
        ("reload", True, "reload"),
        ("sighup", True, "reload"),
        ("sigusr1", True, "reload"),
        ("start", True, "reload"),
        ("stop", True, "stop"),
        ("down", True, "stop"),
        ("restart", False, "stop"),
    ],
)
def test_words_of_sme_become_reload_or_stop(
    machine: Machine, action: str, is_enabled: bool, request_made: str
) -> None:
    with FakeDaemon(machine) as daemon:
        said = adjust(machine, action, is_enabled)

    assert daemon.requests == [request_made]
    assert bool(said) is (request_made == "stop")


def test_service_that_stops_is_told_of(machine: Machine) -> None:
    with FakeDaemon(machine):
        assert adjust(machine, is_enabled=False) == "qpsmtpd is disabled: it stops"
        assert adjust(machine, "stop") == "qpsmtpd was told to stop: it stops"


def test_service_that_does_not_run_is_told_of(machine: Machine) -> None:
    assert adjust(machine) == "qpsmtpd is not running: what was installed waits for it"
    assert adjust(machine, "stop") == ""
    assert adjust(machine, is_enabled=False) == ""


def test_socket_that_a_killed_filter_left_is_one_that_does_not_run(
    machine: Machine,
) -> None:
    with FakeDaemon(machine):
        pass
    assert machine.path("run/qpsmtpd/control").is_socket()

    assert adjust(machine).startswith("qpsmtpd is not running")


def test_refusal_gives_the_reason_of_the_filter(machine: Machine) -> None:
    answer = b'{"ok": false, "error": "plugins:3: no plugin quux"}\n'

    with FakeDaemon(machine, lambda _: answer), pytest.raises(ServiceError) as caught:
        adjust(machine)

    assert str(caught.value) == (
        "qpsmtpd keeps its old configuration: plugins:3: no plugin quux"
    )


def test_answer_that_takes_a_while_is_waited_for(machine: Machine) -> None:
    def slow(request: str) -> bytes:
        time.sleep(0.2)
        return b'{"ok": true}\n'

    with FakeDaemon(machine, slow):
        assert adjust(machine) == ""


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
def test_answer_that_is_none_is_an_error_in_one_line(
    machine: Machine, answer: bytes
) -> None:
    """Never taken for consent, and never for a filter that does not run."""
    with FakeDaemon(machine, lambda _: answer), pytest.raises(ServiceError) as caught:
        adjust(machine)

    assert str(caught.value).startswith("qpsmtpd did not answer reload: ")
    assert "\n" not in str(caught.value)


def test_refusal_without_a_reason_is_a_refusal(machine: Machine) -> None:
    with (
        FakeDaemon(machine, lambda _: b'{"ok": false}\n'),
        pytest.raises(ServiceError, match="keeps its old configuration"),
    ):
        adjust(machine)


def test_silent_filter_is_not_waited_for_for_ever(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_ANSWER_SECONDS", 0.1)

    with (
        FakeDaemon(machine, lambda _: None),
        pytest.raises(
            ServiceError, match=r"^qpsmtpd did not answer reload: timed out$"
        ),
    ):
        adjust(machine)


def test_path_may_be_longer_than_a_socket_address(tmp_path: Path) -> None:
    machine = Machine(tmp_path / ("deep" * 30))

    with FakeDaemon(machine) as daemon:
        assert adjust(machine) == ""

    assert daemon.requests == ["reload"]


def test_action_that_nobody_knows_is_refused_before_anything_is_asked(
    machine: Machine,
) -> None:
    with (
        FakeDaemon(machine) as daemon,
        pytest.raises(ServiceError, match=r"^qpsmtpd: no action explode$"),
    ):
        adjust(machine, "explode")

    assert daemon.requests == []


def test_service_that_nothing_can_steer_is_an_error(machine: Machine) -> None:
    with pytest.raises(ServiceError, match=r"^httpd: no way is known to steer"):
        find_service("httpd", machine.paths)
