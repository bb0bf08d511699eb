"""Programs that tests of the store run beside each other.

    python -m tests.database.writers ours FILE NUMBER COUNT KEY…
    python -m tests.database.writers esmith FILE NUMBER COUNT
    python -m tests.database.writers killed FILE STEP before|after|within
    python -m tests.database.writers steps FILE

``ours`` sets COUNT properties named for its NUMBER on each KEY; ``esmith`` does that
on its own key as e-smith's Perl does it; ``killed`` makes one change and is killed at
the STEP-th call that touches the system; ``steps`` puts out these calls.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from smeconf.database import Database, Record

WATCHED = (
    (
        os,
        "makedirs open close write pwrite ftruncate fstat stat fchmod fchown fsync "
        "rename unlink",
    ),
    (fcntl, "flock"),
)


def ours(file: str, number: str, count: str, *keys: str) -> None:
    for turn in range(int(count)):
        for key in keys:
            with Database(file).transaction() as records:
                record = records.find(key) or Record("service")
                record.properties[f"p{number}_{turn}"] = str(turn)
                records.put(key, record)


def esmith(file: str, number: str, count: str) -> None:
    """Lock, read, write FILE.pid, rename, unlink the lock file, unlock."""
    lock_file = file + ".lock"
    for turn in range(int(count)):
        lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o660)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(file) as reading:
            lines = reading.read().splitlines()
        head = [line for line in lines if line.startswith("#")]
        records = [line for line in lines if not line.startswith("#")]
        records.append(f"esmith{number}_{turn}={turn}")
        with open(f"{file}.{os.getpid()}", "w") as writing:
            writing.write("\n".join(head + sorted(records)) + "\n")
        os.rename(f"{file}.{os.getpid()}", file)
        os.unlink(lock_file)
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def change(file: str) -> None:
    with Database(file).transaction() as records:
        record = records.find("qpsmtpd") or Record("service")
        record.properties["RBLList"] = "new.test" * 100
        records.put("qpsmtpd", record)


def steps(file: str) -> None:
    calls: list[str] = []
    watch(lambda name, call, arguments: (calls.append(name), call(*arguments))[1])
    change(file)
    print("\n".join(calls))


def killed(file: str, step: str, when: str) -> None:
    left = int(step)

    def step_on(name: str, call: Callable[..., Any], arguments: Any) -> Any:
        nonlocal left
        left -= 1
        is_it = left == 0  # calls may lie within calls
        if is_it and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if is_it and when == "within":
            half = bytes(arguments[1])[: len(arguments[1]) // 2]
            call(arguments[0], half, *arguments[2:])
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return call(*arguments)
        finally:  # a call that fails is a step, too
            if is_it and when == "after":
                os.kill(os.getpid(), signal.SIGKILL)

    watch(step_on)
    change(file)


def watch(by: Callable[[str, Callable[..., Any], Any], Any]) -> None:
    """Have ``by`` make every watched call."""
    import time  # noqa: F401  # what a write imports must not count as steps

    for module, names in WATCHED:
        for name in names.split():
            call = getattr(module, name)

            def watched(
                *arguments: Any, _name: str = name, _call: Any = call, **named: Any
            ) -> Any:
                def with_names(*positional: Any) -> Any:
                    return _call(*positional, **named)

                return by(_name, with_names, arguments)

            setattr(module, name, watched)


if __name__ == "__main__":
    {"ours": ours, "esmith": esmith, "killed": killed, "steps": steps}[sys.argv[1]](
        *sys.argv[2:]
    )
