"""Servers under measurement: begun, looked at through /proc, and always ended."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


class Server:
    """A server process and those that it forked."""

    def __init__(self, name: str, pid: int, port: int) -> None:
        self.name = name
        self.pid = pid
        self.port = port

    def pids(self) -> list[int]:
        """Return the process and all its descendants."""
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                with suppress(OSError):
                    parent = int(_stat(int(entry))[1])
                    children.setdefault(parent, []).append(int(entry))
        found = [self.pid]
        for pid in found:
            found += children.get(pid, ())
        return found

    def cpu_ms(self) -> float:
        """Return the processor time that they used so far, user and system.

        By the clock of each process, since /proc/PID/stat counts in steps of 10 ms.
        """
        clocks = (_cpu_clock(pid) for pid in self.pids())
        return sum(map(time.clock_gettime_ns, clocks)) / 1_000_000

    def pss_mb(self) -> float:
        """Return their memory; what several share counts in parts."""
        return sum(_field(pid, "smaps_rollup", "Pss:") for pid in self.pids()) / 1024

    def forget_peaks(self) -> None:
        """Let the peaks of their memory begin anew."""
        for pid in self.pids():
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peaks_mb(self) -> dict[int, float]:
        """Return the highest resident memory of each since then."""
        return {pid: _field(pid, "status", "VmHWM:") / 1024 for pid in self.pids()}


@contextmanager
def running(
    name: str, command: Sequence[str | Path], port: int, log: Path
) -> Iterator[Server]:
    """Run a server; its output goes to ``log``.  Raises RuntimeError if it fails."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        if port:
            _wait_for(process, port, log)
        yield Server(name, process.pid, port)
    finally:
        _end(process)


def free_port() -> int:
    """Return a port that nobody listens on, for TCP or UDP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    said = log.read_text(errors="replace").strip().split("\n")[-1]
    raise RuntimeError(f"{process.args!r} does not serve: {said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):  # it leads a group of its own
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _cpu_clock(pid: int) -> int:
    """Return the id of a process' CPU clock, as clock_getcpuclockid(3) makes it."""
    return ~pid << 3 | 2


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name of the program."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _field(pid: int, file: str, name: str) -> int:
    """Return a number of KiB from a file of /proc; 0 for a process that is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return 0
