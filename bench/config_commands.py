"""The commands ``config getprop``, ``setprop`` and ``batch``, as whole processes.

The unit is ``python -c pass`` of the same virtual environment, run in turns with them.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from environment import install_ours, scratch
from rounds import in_turns
from table import Goal, Row, at_most

_SIZES = (200, 5000)
# By command and number of records: how many times a bare Python.
_GOALS = {
    ("getprop", 200): 1.3,
    ("getprop", 5000): 1.8,
    ("setprop", 200): 1.5,
    ("setprop", 5000): 2.0,
}
_BATCH = 10_000
_WRITERS = 4


class Commands:
    """The installed commands, on a root of their own."""

    def __init__(self, commands: Path, root: Path, records: int) -> None:
        self.environment = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "SMECONF_ROOT": str(root),
        }
        self.python = str(commands / "python")
        self.config = str(commands / "config")
        self.database = root / "home/e-smith/db/configuration"
        self.database.parent.mkdir(parents=True)
        self.database.write_text(make_database(records))

    def measure(self, program: str, *words: str) -> tuple[float, float]:
        """Run a process; return its milliseconds of wall and of processor time."""
        null = os.open(os.devnull, os.O_RDWR)
        try:
            silent = [(os.POSIX_SPAWN_DUP2, null, file) for file in (0, 1, 2)]
            begin = time.perf_counter()
            child = os.posix_spawn(
                program, (program, *words), self.environment, file_actions=silent
            )
            _, status, used = os.wait4(child, 0)
            wall = time.perf_counter() - begin
        finally:
            os.close(null)
        if status != 0:
            code = os.waitstatus_to_exitcode(status)
            raise RuntimeError(f"{program} {' '.join(words)}: exit status {code}")
        return wall * 1000, (used.ru_utime + used.ru_stime) * 1000

    def batch(self, text: str) -> int:
        """Run ``config batch`` on ``text``; return its exit status."""
        ended = subprocess.run(
            (self.config, "batch"),
            input=text.encode(),
            env=self.environment,
            capture_output=True,
            timeout=120,
        )
        return ended.returncode

    def values(self, key: str) -> list[str]:
        """Return type, properties and values of a record, as they are stored."""
        for line in self.database.read_text().split("\n"):
            name, _, record = line.partition("=")
            if name == key:
                return record.split("|")
        return []


def run(is_quick: bool) -> list[Row]:
    """Measure; return the rows.  Raises SetupError."""
    commands = install_ours()
    rows: list[Row] = []
    for records in _SIZES:
        with scratch() as root:
            rows += _single(Commands(commands, root, records), records, is_quick)
    with scratch() as root:
        rows += _batches(Commands(commands, root, _SIZES[0]), 3 if is_quick else 5)
    with scratch() as root:
        writes = 50 if is_quick else 200
        rows.append(_writers(Commands(commands, root, _SIZES[0]), writes))
    return rows


def _single(commands: Commands, records: int, is_quick: bool) -> list[Row]:
    number = count()

    def setprop() -> tuple[float, float]:
        turn = next(number)
        words = ("qpsmtpd", f"Bench{turn % 20}", f"value{turn}")
        return commands.measure(commands.config, "setprop", *words)

    acts: dict[str, Callable[[], tuple[float, float]]] = {
        "bare": lambda: commands.measure(commands.python, "-c", "pass"),
        "getprop": lambda: commands.measure(
            commands.config, "getprop", "qpsmtpd", "DNSBL"
        ),
        "setprop": setprop,
    }
    for act in acts.values():  # warm: the first run reads the disk
        act()
    medians = in_turns(acts, 20 if is_quick else 60, 60)
    rows = []
    for verb in ("getprop", "setprop"):
        limit = _GOALS[verb, records]
        for place, kind in enumerate(("wall", "cpu")):
            ours, bare = medians[verb][place], medians["bare"][place]
            what = f"config {verb}, {records} keys, {kind}"
            goal = at_most(limit, ours / bare, "x")
            rows.append(Row(what, ours, "ms", "python -c pass", bare, goal))
    return rows


def _batches(commands: Commands, rounds: int) -> list[Row]:
    """Measure 10,000 changes in one call, and that a fault in the last undoes all."""
    turn = count()

    def batch() -> tuple[float]:
        text = _batch_text(next(turn))
        begin = time.perf_counter()
        status = commands.batch(text)
        seconds = time.perf_counter() - begin
        if status != 0:
            raise RuntimeError(f"config batch: exit status {status}")
        return (seconds,)

    seconds = in_turns({"batch": batch}, rounds, 30)["batch"][0]
    before = commands.database.read_bytes()
    status = commands.batch(_batch_text(next(turn)) + "nonsense\n")
    is_whole = status != 0 and commands.database.read_bytes() == before
    goal = Goal("under 1 s, one transaction", seconds < 1 and is_whole)
    return [Row(f"config batch, {_BATCH} setprops", seconds, "s", goal=goal)]


def _writers(commands: Commands, writes: int) -> Row:
    """Count what survives when several processes write one key at once."""

    def write(writer: int) -> None:
        for number in range(writes):
            name = f"Writer{writer}N{number}"
            commands.measure(commands.config, "setprop", "qpsmtpd", name, "kept")

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(write, range(_WRITERS)))
    stored = commands.values("qpsmtpd")
    survived = sum(name.startswith("Writer") for name in stored[1::2])
    total = _WRITERS * writes
    goal = Goal(f"all {total}", survived == total)
    what = f"{_WRITERS} writers x {writes} setprops on one key, kept"
    return Row(what, survived, "", goal=goal)


def make_database(records: int) -> str:
    """Return a database as a server has it: services of some properties, sorted."""
    chance = random.Random(1)
    lines = {
        "qpsmtpd": _QPSMTPD,
        "DomainName": "local.test",
        "SystemName": "mail",
    }
    while len(lines) < records:
        fields = ["service", "TCPPort", str(chance.randrange(1, 65536))]
        fields += ["access", chance.choice(("public", "private"))]
        for number in range(chance.randrange(2, 12)):
            fields += [f"Option{number:02}", "v" * chance.randrange(2, 30)]
        fields += ["status", chance.choice(("enabled", "disabled"))]
        lines[f"service{len(lines):04}"] = "|".join(fields)
    head = "# DO NOT MODIFY THIS FILE.\n#\n# updated: never\n"
    return head + "".join(f"{key}={lines[key]}\n" for key in sorted(lines))


def _batch_text(turn: int) -> str:
    """Return 10,000 changes: 50 properties of 197 services, new values each turn."""
    keys = [f"service{number:04}" for number in range(3, _SIZES[0])]
    return "".join(
        f"setprop {keys[n % len(keys)]} Bench{n // len(keys)} 'value {turn} {n}'\n"
        for n in range(_BATCH)
    )


_QPSMTPD = (
    "service|Bcc|disabled|BccMode|cc|BccUser|maillog|DNSBL|enabled|LogLevel|6"
    "|MaxScannerSize|25000000|RBLList|zen.example.org,bl.example.net:Blocked"
    "|RHSBL|disabled|RelayRequiresAuth|disabled|RequireResolvableFromHost|no"
    "|SBLList|dbl.example.org|UBLList|multi.example.org|URIBL|disabled"
    "|access|public|qplogsumm|disabled|status|enabled|tlsBeforeAuth|1"
)
