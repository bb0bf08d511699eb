"""Services: what an event tells them, and how.

Two makers behind one interface (``Service``): systemd where it runs and has a unit for
the service, else the control socket of our own filter.  See docs/services.md.

    check_words("qpsmtpd", ["sigusr1"])
    said = find_service("qpsmtpd", paths).adjust(["sigusr1"], is_enabled=True)
"""

from smeconf.paths import Paths
from smeconf.services.own import OwnDaemon
from smeconf.services.service import Service, ServiceError, Status
from smeconf.services.systemd import FilterUnit, Unit, find_systemctl, has_unit
from smeconf.services.words import FILTER, check_words, parse_actions, read_actions

__all__ = [
    "Service",
    "ServiceError",
    "Status",
    "check_words",
    "find_service",
    "parse_actions",
    "read_actions",
]


def find_service(name: str, paths: Paths) -> Service:
    """Return the maker that steers a service.

    Raises ServiceError for a service that nothing here can steer.
    """
    systemctl = find_systemctl(paths)
    if systemctl and has_unit(name, paths):
        if name == FILTER:
            return FilterUnit(name, paths, systemctl)
        return Unit(name, systemctl)
    if name == FILTER:
        return OwnDaemon(name, paths)
    why = f"there is no unit {name}.service" if systemctl else "systemd does not run"
    raise ServiceError(f"{name}: no way is known to steer this service: {why}")
