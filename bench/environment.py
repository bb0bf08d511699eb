"""What the benchmarks run: the wheel of this checkout, the peers, and the load.

All of it lies in ``bench/.cache``: a virtual environment with our wheel (an editable
install would measure something else), one with aiosmtpd and uvloop, and Postfix'
smtp-source, unpacked from its package without installing it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent
CHECKOUT = BENCH.parent
CACHE = BENCH / ".cache"

_INSTALL_SECONDS = 300


class SetupError(Exception):
    """What the benchmarks need cannot be had: the reason, for people."""


@dataclass(frozen=True)
class Load:
    """Postfix' smtp-source: the program, and the environment that it runs in."""

    program: str
    environment: dict[str, str]


def install_ours() -> Path:
    """Build and install the checkout's wheel; return the directory of its commands.

    Raises SetupError.
    """
    python = _environment("ours")
    wheels = CACHE / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    _run(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, CHECKOUT)
    (wheel,) = wheels.glob("*.whl")
    _run(python, "-m", "pip", "uninstall", "-q", "-y", "smeconf")
    _run(python, "-m", "pip", "install", "-q", wheel)
    return python.parent


def install_peer() -> Path:
    """Install aiosmtpd and uvloop; return the Python that has them.

    Raises SetupError.
    """
    python = _environment("peer")
    _run(python, "-m", "pip", "install", "-q", "aiosmtpd", "uvloop")
    return python


def find_load() -> Load | None:
    """Return smtp-source; None, with a line that says why, where it cannot be had."""
    if program := shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin"):
        return Load(program, dict(os.environ))
    unpacked = CACHE / "postfix"
    program = str(unpacked / "usr/sbin/smtp-source")
    try:
        if not os.path.exists(program):
            _unpack_postfix(unpacked)
    except SetupError as error:
        print(f"no smtp-source, its rows are skipped: {error}")
        return None
    return Load(program, {"LD_LIBRARY_PATH": str(unpacked / "usr/lib/postfix")})


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a directory that is gone afterwards, on the disk of the checkout.

    Not in /tmp: where that is memory, an fsync costs nothing.
    """
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as directory:
        yield Path(directory)


def _environment(name: str) -> Path:
    """Make a virtual environment unless it is there; return its Python."""
    directory = CACHE / name
    python = directory / "bin/python"
    if not python.exists():
        CACHE.mkdir(exist_ok=True)
        _run(sys.executable, "-m", "venv", "--clear", directory)
    return python


def _unpack_postfix(directory: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise SetupError("it takes root and apt to fetch Postfix' package")
    with scratch() as download:
        # apt fetches as a user of its own, who may not read the checkout.
        fetch = ("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download")
        try:
            _run(*fetch, "postfix", cwd=download)
        except SetupError:
            _run("apt-get", "-q", "update")
            _run(*fetch, "postfix", cwd=download)
        (package,) = download.glob("postfix_*.deb")
        _run("dpkg", "-x", package, directory)


def _run(*words: str | Path, cwd: Path = CHECKOUT) -> None:
    command = [str(word) for word in words]
    try:
        subprocess.run(
            command,
            cwd=cwd,
            check=True,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().split("\n")[-1]
        raise SetupError(f"{' '.join(command)}: {said}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{' '.join(command)}: {error}") from None
