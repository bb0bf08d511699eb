"""``smeconf status``: whether the filter runs, and what it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from smeconf.cli.status import status
from tests.support.config import FakeDaemon, Machine
from tests.support.smtp import Filter

ANSWER: dict[str, Any] = {
    "pid": 4711,
    "since": "2026-03-01T10:00:00+0100",
    "up_seconds": 93_784.0,
    "listen": ["127.0.0.1:25"],
    "configuration": "5f3a",
    "sessions": 7,
    "memory_bytes": 1,
    "memory_kind": "PSS",
    "workers": [
        {
            "pid": 4712,
            "generation": 2,
            "sessions": 7,
            "memory_bytes": 24_600_000,
            "memory_kind": "PSS",
            "messages": 90,
        }
    ],
    "counts": {
        "connections": 1000,
        "connections_refused": 20,
        "messages": 100,
        "message_bytes": 4_200_000,
        "refused_rcpt": 5,
        "refused_data_post": 6,
    },
    "rates_a_minute": {"messages": {"1": 1.5, "5": 2.0, "15": 0.0}},
    "verdicts": [
        {
            "plugin": "rcpt_ok",
            "hook": "rcpt",
            "verdict": verdict,
            "times": times,
            "seconds": 0.05,
        }
        for verdict, times in (("DECLINED", 900), ("DENY", 5), ("OK", 100))
    ],
}


def told(machine: Machine, *words: str) -> Result:
    return CliRunner().invoke(status, words, obj=machine.paths)


def test_filter_that_does_not_run_is_3_as_with_systemctl(tmp_path: Path) -> None:
    result = told(Machine(tmp_path))

    assert result.exit_code == 3
    assert result.output == (
        "qpsmtpd is not running: smeconf up, or your supervisor, starts it\n"
    )


def test_filter_that_does_not_run_is_said_in_json(tmp_path: Path) -> None:
    result = told(Machine(tmp_path), "--json")

    assert result.exit_code == 3
    assert json.loads(result.output) == {"qpsmtpd": {"running": False}}


def test_filter_that_runs_is_told_on_one_screen(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with FakeDaemon(machine, lambda request: ANSWER):
        result = told(machine)

    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "qpsmtpd runs, process 4711, on 127.0.0.1:25",
        "  since          2026-03-01 10:00:00+0100 (1 d 2 h)",
        "  configuration  generation 2, 5f3a",
        "  connections    7 now, 1000 in all, 20 over a limit",
        "  messages       100 taken (4.2 MB), 11 refusals",
        "  messages/min   1.5 (1 min), 2 (5 min), 0 (15 min)",
        "",
        "  worker   generation  sessions  messages   memory",
        "  4712              2         7        90   24.6 MB PSS",
        "",
        "  plugin                   hook           verdict              times   mean",
        "  rcpt_ok                  rcpt           OK                     100   0.5 ms",
        "  rcpt_ok                  rcpt           DENY                     5   10 ms",
    ]


def test_many_verdicts_are_cut_to_the_most_frequent(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    many = [
        {
            "plugin": f"p{n}",
            "hook": "rcpt",
            "verdict": "OK",
            "times": n,
            "seconds": 1.0,
        }
        for n in range(1, 61)
    ]
    with FakeDaemon(machine, lambda request: {**ANSWER, "verdicts": many}):
        lines = told(machine).output.splitlines()

    assert len(lines) < 40
    assert lines[11].split()[0] == "p60"
    assert lines[-1] == "  … and 40 more: smeconf status --json"


def test_filter_of_an_older_version_is_said_to_run(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with FakeDaemon(machine, lambda request: {"pid": 5, "workers": [6, 7]}):
        result = told(machine)

    assert result.exit_code == 0
    assert "of an older version" in result.output


def test_filter_that_does_not_answer_is_an_error_in_one_line(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with FakeDaemon(machine, lambda request: b"what?\n"):
        result = told(machine)

    assert result.exit_code == 1
    assert result.output.startswith("Error: qpsmtpd did not answer status: ")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_real_filter_is_understood(tmp_path: Path, words: tuple[str, ...]) -> None:
    with Filter(tmp_path) as filter:
        result = told(Machine(filter.root), *words)

    assert result.exit_code == 0, result.output
    if words:
        found = json.loads(result.output)["qpsmtpd"]
        assert found["running"] is True
        assert found["generation"] == 1
        assert len(found["workers"]) == 1
    else:
        assert f"on 127.0.0.1:{filter.port}\n" in result.output
        assert "generation 1\n" in result.output
