"""Our own filter, run by hand or by a supervisor: steered by its control socket.

The socket answers, so the event knows whether the new configuration serves and not only
that a signal was sent: the answer names the configuration, and a new connection is
greeted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from smeconf.paths import Paths, generation_file
from smeconf.services.control import Control
from smeconf.services.greeting import await_greetings
from smeconf.services.process import has_ended, kill_master, start_filter
from smeconf.services.service import ServiceError, Status
from smeconf.services.words import Step, filter_steps


class OwnDaemon:
    """The filter as a process of its own."""

    def __init__(self, name: str, paths: Paths) -> None:
        self.name = name
        self._paths = paths
        self._control = Control(name, paths)

    def adjust(self, actions: Sequence[str], is_enabled: bool) -> str:
        """Do what an event asks; see ``Service.adjust``."""
        steps = filter_steps(self.name, actions, is_enabled)
        do: dict[Step, Callable[[], str]] = {
            Step.RELOAD: self._reload,
            Step.START: self._start,
            Step.STOP: self._stop,
            Step.KILL: self._kill,
            Step.ENABLE: lambda: self._set_boot("enable"),
            Step.DISABLE: lambda: self._set_boot("disable"),
        }
        said = [do[step]() for step in steps]
        if not is_enabled and any(said):
            return f"{self.name} is disabled: it stops"
        return "; ".join(filter(None, said))

    def status(self) -> Status:
        """Return how the filter is; see ``Service.status``."""
        answer = self._control.ask("status")
        if answer is None:
            return Status(False, detail="is not running")
        pid, configuration = answer.get("pid"), answer.get("configuration")
        where = ", ".join(map(str, answer.get("listen") or ()))
        return Status(
            True,
            pid if isinstance(pid, int) else None,
            f"generation {answer.get('generation')} serves on {where}",
            configuration if isinstance(configuration, str) else None,
        )

    def _reload(self) -> str:
        """Have the filter read its directory; return what there is to say.

        Raises ServiceError unless what is installed serves in the end.
        """
        # Twice: another configuration may have been installed while it loaded.
        for _ in range(2):
            installed = self._installed()
            answer = self._control.ask("reload")
            if answer is None:
                return f"{self.name} is not running: what was installed waits for it"
            if not answer["ok"]:
                raise ServiceError(
                    f"{self.name} keeps its old configuration: {answer.get('error')}"
                )
            if _serves(answer, installed):
                return self._prove(answer, installed)
            served = answer.get("configuration")
        raise ServiceError(
            f"{self.name} serves configuration {served or '(none)'}, "
            f"not {installed or '(none)'}"
        )

    def _prove(self, answer: dict[str, Any], installed: str) -> str:
        await_greetings(self.name, answer)
        if installed and answer.get("configuration") is None:
            return (
                f"{self.name} is of an older version: stop and start it to be sure "
                f"that it serves what was installed"
            )
        return ""

    def _start(self) -> str:
        """Start what does not run, and have what runs read its directory."""
        if self._control.ask("status") is not None:
            return self._reload()
        installed = self._installed()
        answer = self._launch()
        if _serves(answer, installed):
            said = self._prove(answer, installed)
        else:
            said = self._reload()
        return said or f"{self.name} is started"

    def _launch(self) -> dict[str, Any]:
        """Make the filter run; return what it answers once it serves."""
        return start_filter(self.name, self._paths, self._control)

    def _stop(self) -> str:
        answer = self._control.ask("stop")
        if answer is None:
            return ""
        if not answer["ok"]:
            raise ServiceError(f"{self.name} does not stop: {answer.get('error')}")
        said = f"{self.name} was told to stop: it stops"
        if not has_ended(answer.get("pid")):
            return f"{said} when its sessions have ended"
        return said

    def _kill(self) -> str:
        was_there = kill_master(self.name, self._paths)
        return f"{self.name} was killed" if was_there else ""

    def _set_boot(self, verb: str) -> str:
        return f"{self.name}: {verb} has no meaning without systemd"

    def _installed(self) -> str:
        """Return the id of the configuration on disk, empty where it has none."""
        path = generation_file(self._paths.service_config(self.name))
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)["id"]
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise ServiceError(f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, str):
            raise ServiceError(f"{path}: names no configuration: run the event again")
        return found


def _serves(answer: dict[str, Any], installed: str) -> bool:
    """Tell whether a filter serves what is installed, or is too old to know."""
    return answer.get("configuration") in (installed, None)
