"""What a client may ask of the filter: the file ``limits``, ``name number`` a line.

The numbers where there is none are Postfix', which has lived with them for long.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields

from smeconf.smtpd.config import Directory, whole_number


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection; 0 is none.

    ``errors_soft`` refused commands are answered at once, those behind them after
    ``error_delay`` seconds each, and with ``errors_hard`` the connection ends.
    ``junk_commands`` is how many NOOP, VRFY, HELP and RSET are no error;
    ``header_size`` is in bytes, ``data_rate`` in bytes a second, which a message must
    reach after its first ``data_grace`` seconds.
    """

    recipients: int = 1000
    errors_soft: int = 10
    errors_hard: int = 20
    error_delay: int = 1
    junk_commands: int = 100
    auth_failures: int = 3
    header_size: int = 102_400
    data_rate: int = 500
    data_grace: int = 100

    @classmethod
    def read(cls, directory: Directory) -> Limits:
        """Read them.  Raises ConfigError naming the line."""
        known = [one.name for one in fields(cls)]
        values: dict[str, int] = {}
        for line in directory.lines("limits"):
            name, _, number = line.text.partition(" ")
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise line.fault(f"there is no limit {name}{hint}")
            try:
                values[name] = whole_number(number.strip())
            except ValueError as error:
                raise line.fault(error) from error
        return cls(**values)
