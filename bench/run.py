"""Measure smeconf on this machine, beside its peers.

    make bench                                 or: .venv/bin/python bench/run.py
    .venv/bin/python bench/run.py --quick      fewer rounds
    .venv/bin/python bench/run.py --only config
    .venv/bin/python bench/run.py --only event
    .venv/bin/python bench/run.py --only message

It needs Linux, Python 3.11 with venv and a package index.  What it runs it puts into
bench/.cache: our wheel, freshly built from this checkout, in a virtual environment;
aiosmtpd and uvloop, the peer, in another; and Postfix' smtp-source, the load (from the
PATH, else, as root on Debian, unpacked from its package without installing it; else
its rows are skipped, and that is said).  ``rm -r bench/.cache`` undoes it all.

What is compared runs in turns within one run, and the median of the rounds counts.  A
ratio holds on any machine; milliseconds are of this one: the bare protocol's say how
fast it is.  A full run takes up to six minutes, a quick one a minute and a half, once
the environments are there.  A goal that is missed is no failure: the exit status is 0,
and 1 only where nothing could be measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from types import FrameType

import config_commands
import event_runs
import messages
from environment import SetupError
from table import Row, show

_BENCHMARKS = {
    "config": config_commands.run,
    "event": event_runs.run,
    "message": messages.run,
}


def main() -> int:
    """Run the benchmarks that are asked for; return the exit status."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=_BENCHMARKS, help="one kind of figures")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    # So that servers are ended however we end.
    signal.signal(signal.SIGTERM, _leave)
    begin = time.monotonic()
    rows: list[Row] = []
    for name, measure in _BENCHMARKS.items():
        if options.only in (None, name):
            try:
                rows += measure(options.quick)
            except (SetupError, RuntimeError, OSError) as error:
                print(f"{name}: not measured: {error}", file=sys.stderr)
    if not rows:
        return 1
    python, processors = platform.python_version(), os.cpu_count()
    seconds = time.monotonic() - begin
    print(f"Python {python}, {processors} processors, {seconds:.0f} s\n")
    print(show(rows))
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
