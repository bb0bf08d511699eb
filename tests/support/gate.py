"""A place in a script where it waits until the test lets it go on.

with Gate(tmp_path / "gate") as gate:
    machine.event("try", actions={"S50": gate.script})
    run = machine.start("signal-event", "try")
    gate.await_arrival()
    gate.let_pass()
"""

from __future__ import annotations

import os
import select
from pathlib import Path

from tests.support.config import SECONDS


class Gate:
    """Two named pipes: who comes says so in one, and waits for a line in the other.

    ``script`` is what a shell script does to come through.  Leaving the context lets
    through whoever still waits.
    """

    def __init__(self, path: Path) -> None:
        arrived, opened = f"{path}.arrived", f"{path}.opened"
        for pipe in (arrived, opened):
            os.mkfifo(pipe)
        # Open for both, so that neither side ever waits for the other to come.
        self._arrived = os.open(arrived, os.O_RDWR)
        self._opened = os.open(opened, os.O_RDWR)
        self.script = f"echo >'{arrived}'; read line <'{opened}'"

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_pass(9)
        os.close(self._arrived)
        os.close(self._opened)

    def await_arrival(self) -> None:
        """Wait until somebody stands at the gate."""
        assert select.select([self._arrived], [], [], SECONDS)[0], "nobody came"
        os.read(self._arrived, 1)

    def let_pass(self, times: int = 1) -> None:
        """Let as many through, whether they are there or still to come."""
        os.write(self._opened, b"\n" * times)
