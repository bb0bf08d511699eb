"""The unit that is shipped for systemd, and the command that prints it."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smeconf.cli.unit import unit
from smeconf.paths import Paths

BIN = Path(sys.executable).parent


def run(root: str, *words: str) -> Result:
    return CliRunner().invoke(unit, list(words), obj=Paths(root))


class _Sections(configparser.RawConfigParser):
    """systemd's syntax: keys keep their case; one given twice adds to the first."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def parsed(text: str) -> _Sections:
    sections = _Sections(strict=False, delimiters=("=",), comment_prefixes=("#",))
    sections.read_string(text)
    return sections


def test_unit_names_this_installation_and_this_root(tmp_path: Path) -> None:
    result = run(str(tmp_path))

    assert result.exit_code == 0
    service = parsed(result.stdout)["Service"]
    assert service["ExecStart"] == f'"{BIN}/smeconf-smtpd"'
    assert service["ExecReload"] == f'"{BIN}/smeconf-smtpd" --reload'
    assert service["Environment"] == f'"SMECONF_ROOT={tmp_path}"'
    assert "@BIN@" not in result.stdout
    assert "@ROOT@" not in result.stdout
    assert run(str(tmp_path), "qpsmtpd").stdout == result.stdout


def test_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    """Its own check where it is installed, which tells of unknown keys and values."""
    text = run("/").stdout
    file = tmp_path / "qpsmtpd.service"
    file.write_text(text)

    sections = parsed(text)

    assert sections.sections() == ["Unit", "Service", "Install"]
    assert sections["Service"]["KillMode"] == "mixed"
    assert sections["Service"]["Restart"] == "on-failure"
    assert sections["Install"]["WantedBy"] == "multi-user.target"
    if program := shutil.which("systemd-analyze"):
        words = ["verify", "--man=no", "--recursive-errors=no"]
        done = subprocess.run(
            [program, *words, file],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "")


def test_service_without_a_shipped_unit_is_an_error() -> None:
    result = run("/", "qpsmptd")

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: qpsmptd: no unit is shipped for it; did you mean qpsmtpd?; "
        "there is qpsmtpd\n"
    )


@pytest.mark.parametrize("sign", ['"', "%", "$", "\\", "\n"])
def test_path_that_systemd_would_read_otherwise_is_refused(sign: str) -> None:
    result = run(f"/srv/a{sign}b")

    assert result.exit_code == 1
    assert "a unit cannot name this path" in result.stderr
