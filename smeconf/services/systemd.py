"""Services that systemd makes run, our filter's unit among them.

systemd is asked only where the machine below the root was booted with it: an image that
is prepared below a root must never act on the machine that prepares it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from smeconf.paths import Paths
from smeconf.services.own import OwnDaemon
from smeconf.services.process import START_SECONDS
from smeconf.services.service import ServiceError, Status
from smeconf.services.words import unit_calls

CALL_SECONDS = 90.0
_PAUSE_SECONDS = 0.1

_UNIT_PLACES = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.@-]*")
_UNDER_WAY = ("activating", "reloading", "deactivating")

# Behind these a service must be active; behind the second it may be inactive as before.
_STARTING = (("start",), ("restart",), ("reload-or-restart",), ("enable", "--now"))
_TRYING = (("reload",), ("try-restart",), ("try-reload-or-restart",))


def find_systemctl(paths: Paths) -> str | None:
    """Return the program systemctl; None where systemd does not run the machine."""
    # The test of sd_booted(3).
    if not os.path.isdir(paths.under("run/systemd/system")):
        return None
    return shutil.which("systemctl")


def has_unit(name: str, paths: Paths) -> bool:
    """Tell whether systemd has a unit file for a service."""
    return _NAME.fullmatch(name) is not None and any(
        os.path.lexists(paths.under(f"{place}/{name}.service"))
        for place in _UNIT_PLACES
    )


class Systemctl:
    """The program systemctl, for one unit."""

    def __init__(self, name: str, program: str) -> None:
        self._name = name
        self._program = program

    def call(self, *words: str) -> None:
        """Have systemd do something.

        Raises ServiceError with the reason where it fails or takes too long.
        """
        status, said = self._run(*words)
        if status != 0:
            first = next((line for line in said.splitlines() if line.strip()), "")
            raise ServiceError(
                f"{self._name}: systemctl {' '.join(words)} failed: "
                f"{self.reason() or first.strip() or f'exit status {status}'}"
            )

    def facts(self) -> dict[str, str]:
        """Return what systemd knows of the unit."""
        names = "Type,ActiveState,SubState,Result,ExecMainStatus,MainPID"
        _, said = self._run("show", "--no-pager", f"--property={names}")
        return {
            key: value
            for key, mark, value in (line.partition("=") for line in said.splitlines())
            if mark
        }

    def state(self) -> str:
        """Return the unit's state: ``active``, ``inactive``, ``failed`` ..."""
        return self.facts().get("ActiveState", "unknown")

    def reason(self) -> str:
        """Return why the unit failed, as far as systemd and its journal know."""
        facts = self.facts()
        why = []
        if facts.get("Result", "success") != "success":
            why.append(facts["Result"])
        if facts.get("ExecMainStatus", "0") != "0":
            why.append(f"exit status {facts['ExecMainStatus']}")
        if why and (line := self._last_words()):
            why.append(line)
        return ", ".join(why)

    def _last_words(self) -> str:
        """Return the last line that the service itself logged."""
        _, said = self._run("status", "--no-pager", "--full", "--lines=10")
        # The journal's lines stand behind a blank one: DATE HOST PROGRAM[PID]: TEXT
        lines = said.partition("\n\n")[2].splitlines()
        own = [line for line in lines if ": " in line and " systemd[" not in line]
        return own[-1].partition(": ")[2].strip() if own else ""

    def _run(self, verb: str, *words: str) -> tuple[int, str]:
        command = [self._program, "--no-ask-password", verb, *words]
        # A file, not a pipe, which something left behind might hold open for ever.
        with tempfile.TemporaryFile() as output:
            try:
                done = subprocess.run(
                    [*command, f"{self._name}.service"],
                    env={**os.environ, "LC_ALL": "C.UTF-8"},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=CALL_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise ServiceError(
                    f"{self._name}: systemctl {verb} did not end within "
                    f"{CALL_SECONDS:g} s"
                ) from error
            except OSError as error:
                raise ServiceError(f"{self._program}: {error.strerror}") from error
            output.seek(0)
            return done.returncode, output.read().decode("utf-8", "replace")


class Unit:
    """A service of which only systemd knows more."""

    def __init__(self, name: str, systemctl: str) -> None:
        self.name = name
        self._systemctl = Systemctl(name, systemctl)

    def adjust(self, actions: Sequence[str], is_enabled: bool) -> str:
        """Do what an event asks; see ``Service.adjust``."""
        calls = unit_calls(self.name, actions, is_enabled)
        if is_enabled:
            return "; ".join(filter(None, map(self._do, calls)))
        was_running = self._systemctl.state() not in ("inactive", "failed")
        for words in calls:
            self._systemctl.call(*words)
        return f"{self.name} is disabled: it stops" if was_running else ""

    def status(self) -> Status:
        """Return how the service is; see ``Service.status``."""
        return _status(self._systemctl.facts())

    def _do(self, words: tuple[str, ...]) -> str:
        if words == ("reload",) and self._systemctl.state() in ("inactive", "failed"):
            return f"{self.name} is not running: what was installed waits for it"
        if words in _STARTING and self._systemctl.state() == "failed":
            # One that failed too often in a while is not started again without this.
            self._systemctl.call("reset-failed")
        self._systemctl.call(*words)
        if words in _STARTING:
            self._await_active(())
        elif words in _TRYING:
            self._await_active(("inactive",))
        return ""

    def _await_active(self, also_good: tuple[str, ...]) -> None:
        """Wait until the service is active; raise ServiceError where it will not be."""
        facts = await_settled(self._systemctl)
        state = facts.get("ActiveState", "unknown")
        is_done = facts.get("Type") == "oneshot" and state == "inactive"
        if state == "active" or state in also_good:
            return
        if is_done and facts.get("Result") == "success":
            return
        reason = self._systemctl.reason()
        raise ServiceError(
            f"{self.name} does not run: {state}{f', {reason}' if reason else ''}"
        )


class FilterUnit(OwnDaemon):
    """Our filter as a unit: systemd starts and ends it, its socket does the rest."""

    def __init__(self, name: str, paths: Paths, systemctl: str) -> None:
        super().__init__(name, paths)
        self._systemctl = Systemctl(name, systemctl)

    def status(self) -> Status:
        """Return how the filter is; see ``Service.status``."""
        served = super().status()
        if not served.is_running:
            return _status(self._systemctl.facts())
        return served

    def _launch(self) -> dict[str, Any]:
        if self._systemctl.state() == "failed":
            self._systemctl.call("reset-failed")
        self._systemctl.call("start")
        return self._await_answer()

    def _await_answer(self) -> dict[str, Any]:
        """Wait until the filter serves: to systemd it is active as soon as it runs."""
        deadline = time.monotonic() + START_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                answer = self._control.ask("status", left)
            except ServiceError:
                answer = None  # it may have ended while it was asked
            if answer is not None and answer["ok"]:
                return answer
            # What failed may wait to be started again: it is not waited for.
            facts = self._systemctl.facts()
            if facts.get("ActiveState") in ("inactive", "failed") or (
                facts.get("SubState") == "auto-restart"
            ):
                raise ServiceError(
                    f"{self.name} does not start: "
                    f"{self._systemctl.reason() or facts['ActiveState']}"
                )
            time.sleep(_PAUSE_SECONDS)
        raise ServiceError(f"{self.name} did not serve within {START_SECONDS:g} s")

    def _stop(self) -> str:
        # One that was started by hand is unknown to systemd, but not to its socket.
        if self._systemctl.state() in ("inactive", "failed"):
            return super()._stop()
        self._systemctl.call("stop")
        return f"{self.name} was told to stop: it stops"

    def _set_boot(self, verb: str) -> str:
        self._systemctl.call(verb)
        return ""


def await_settled(systemctl: Systemctl) -> dict[str, str]:
    """Return what systemd knows of a unit once nothing is under way any more.

    Waits START_SECONDS at most.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        facts = systemctl.facts()
        is_over = facts.get("ActiveState") not in _UNDER_WAY
        # It failed, and will again.
        is_over |= facts.get("SubState") == "auto-restart"
        if is_over or time.monotonic() >= deadline:
            return facts
        time.sleep(_PAUSE_SECONDS)


def _status(facts: dict[str, str]) -> Status:
    state, pid = facts.get("ActiveState", "unknown"), facts.get("MainPID", "")
    return Status(
        state in ("active", "reloading"),
        int(pid) if pid.isdecimal() and pid != "0" else None,
        f"{state} ({facts.get('SubState', '')})",
    )
