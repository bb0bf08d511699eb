"""What services are told by an event, and what they are owed by one that was undone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from smeconf.database import DatabaseError
from smeconf.events.install import find_debts
from smeconf.events.journal import InstallError
from smeconf.events.log import EventLog
from smeconf.paths import Paths
from smeconf.services import ServiceError, check_words, find_service
from smeconf.system import System
from smeconf.templates import Snapshot

Services = Mapping[str, Sequence[str]]


class Adjuster:
    """Tells services their actions, as the databases say of them."""

    def __init__(
        self, paths: Paths, system: System, snapshot: Snapshot, log: EventLog
    ) -> None:
        self._paths = paths
        self._system = system
        self._snapshot = snapshot
        self._log = log
        self.told: set[str] = set()  # those that were, and did it

    def check(self, services: Services) -> None:
        """Raise ServiceError for a service or a word that nobody knows."""
        for name, actions in services.items():
            self._is_enabled(name)
            check_words(name, actions)

    def tell(self, services: Services) -> None:
        """Tell each service its actions.  Raises ServiceError, DatabaseError."""
        for name, actions in services.items():
            words = ", ".join(actions)
            with self._log.step(
                "service", f"{name}: {words}", service=name, actions=words
            ):
                service = find_service(name, self._paths)
                said = service.adjust(actions, self._is_enabled(name))
            self.told.add(name)
            for line in said.splitlines():
                self._log.notice(line)

    def pay_debts(self, told: Collection[str] = ()) -> list[str]:
        """Tell services of files that were put back since they were told of new ones.

        ``told`` have been told just now.  Returns why some could not be, in lines.
        """
        faults: list[str] = []
        try:
            debts = find_debts(self._paths, self._system)
        except InstallError as error:
            return str(error).splitlines()
        for install, services in debts:
            owed = {name: said for name, said in services.items() if name not in told}
            try:
                self.tell(owed)
                install.settle()
            except (ServiceError, DatabaseError) as error:
                faults.append(str(error))
            except OSError as error:
                faults.append(f"{error.filename}: {error.strerror}")
        return faults

    def _is_enabled(self, name: str) -> bool:
        record = self._snapshot.find("configuration", name)
        if record is None or isinstance(record, str):
            raise ServiceError(f"{name}: configuration has no such service")
        return record.find("status") == "enabled"
