"""What of the configuration directory the master itself goes by, beside the list of
addresses to listen on: limits for all workers, log, metrics."""

from __future__ import annotations

from dataclasses import dataclass

from smeconf.smtpd.admission import AdmissionLimits
from smeconf.smtpd.config import Directory
from smeconf.smtpd.log_settings import LogSettings
from smeconf.smtpd.metrics import MetricsSettings


@dataclass(frozen=True, slots=True)
class MasterSettings:
    """All of it."""

    limits: AdmissionLimits
    log: LogSettings
    metrics: MetricsSettings

    @classmethod
    def read(cls, directory: Directory) -> MasterSettings:
        """Read them.  Raises ConfigError naming the line."""
        return cls(
            AdmissionLimits.read(directory),
            LogSettings.read(directory),
            MetricsSettings.read(directory),
        )
