"""What an administrator installs: the wheel, far from any checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gateway import Gateway

CHECKOUT = Path(__file__).parents[2]


def pip(python: Path, *words: str) -> None:
    """Run pip, failing with what it said."""
    result = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a wheel installed in an empty virtual environment."""
    place = tmp_path_factory.mktemp("wheel")
    pip(
        Path(sys.executable),
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(place),
        str(CHECKOUT),
    )
    (wheel,) = place.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    pip(place / "venv/bin/python", "install", "-q", str(wheel))
    return place / "venv/bin"


def test_installed_wheel_does_the_main_job(installed: Path, tmp_path: Path) -> None:
    with Gateway(tmp_path, installed) as gateway:
        gateway.up()
        gateway.setprop(RBLList="b.example.test:no", DNSBL="enabled")
        gateway.email_update()

        gateway.send()

        assert len(gateway.delivered()) == 1
        share = installed.parent / "lib"
        zones = gateway.run(
            "expand-template", "--stdout", "/var/service/qpsmtpd/config/me"
        )
        assert zones.stdout.endswith("\nmail.local.test\n")
        assert list(share.glob("*/site-packages/smeconf/share/templates"))


@pytest.mark.parametrize("name", ["config", "db", "expand-template", "signal-event"])
def test_commands_of_the_hot_path_are_scripts_as_they_are(
    installed: Path, name: str
) -> None:
    """The wrapper that pip writes imports ``re``, which costs more than the verb."""
    first, *lines = (installed / name).read_text().splitlines()

    assert first.startswith(f"#!{installed}/python")
    source = (CHECKOUT / "smeconf/cli/scripts" / name).read_text().splitlines()
    assert lines == source[1:]


def test_scripts_keep_working_when_they_are_called_from_elsewhere(
    installed: Path, tmp_path: Path
) -> None:
    result = subprocess.run(
        [installed / "config", "keys"],
        cwd=tmp_path,
        env={"SMECONF_ROOT": str(tmp_path), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout, result.stderr) == (1, "", "")
