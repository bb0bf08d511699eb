"""``signal-event`` as a whole process: 30 targets of 5 fragments each.

Unchanged: nothing is to be written.  Changed: all 30 files are, each made durable.
Cold: the same without the cache of compiled templates, as after an upgrade.  The unit
is ``python -c pass`` of the same virtual environment, run in turns with them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

from config_commands import Commands
from environment import install_ours, scratch
from rounds import in_turns
from table import Row, at_most

_SIZES = (200, 5000)
_TARGETS, _FRAGMENTS = 30, 5
_TIMES_BARE = 15.0
_TIMES_SMALL = 1.2

_FRAGMENT = """\
# part {number} of {target}
{{% if qpsmtpd.Bench1 | default("") %}}
value {{{{ qpsmtpd.Bench1 }}}}
{{% endif %}}
{{% for entry in qpsmtpd.RBLList | entries %}}
zone {{{{ entry }}}}
{{% endfor %}}
host {{{{ SystemName }}}}.{{{{ DomainName }}}}
"""


def run(is_quick: bool) -> list[Row]:
    """Measure; return the rows.  Raises SetupError."""
    commands = install_ours()
    rows: list[Row] = []
    small: dict[str, float] = {}
    for records in _SIZES:
        with scratch() as root:
            medians = _measure(Commands(commands, root, records), root, is_quick)
        bare = medians.pop("bare")
        for name, wall in medians.items():
            what = f"event of {_TARGETS} x {_FRAGMENTS}, {records} keys, {name}"
            goal = None
            if name != "cold":
                goal = at_most(_TIMES_BARE, wall / bare, "x")
            rows.append(Row(what, wall, "ms", "python -c pass", bare, goal))
            if records == _SIZES[0]:
                small[name] = wall
            else:
                goal = at_most(_TIMES_SMALL, wall / small[name], "x")
                peer = f"{_SIZES[0]} keys"
                rows.append(Row(what, wall, "ms", peer, small[name], goal))
    return rows


def _measure(commands: Commands, root: Path, is_quick: bool) -> dict[str, float]:
    """Return the median milliseconds of each kind of run."""
    _make_event(root)
    signal_event = str(Path(commands.config).with_name("signal-event"))
    cache = root / "var/lib/smeconf/templates.cache"
    number = count()

    def event() -> tuple[float, float]:
        return commands.measure(signal_event, "bench")

    def change() -> None:
        value = f"value{next(number)}"
        commands.measure(commands.config, "setprop", "qpsmtpd", "Bench1", value)

    def changed() -> tuple[float, float]:
        change()
        return event()

    def cold() -> tuple[float, float]:
        change()
        cache.unlink(missing_ok=True)
        return event()

    acts: dict[str, Callable[[], tuple[float, float]]] = {
        "bare": lambda: commands.measure(commands.python, "-c", "pass"),
        "unchanged": event,
        "changed": changed,
        "cold": cold,
    }
    # In this order: cold leaves a cache behind for the unchanged of the next round.
    for act in acts.values():
        act()
    medians = in_turns(acts, 10 if is_quick else 30, 60)
    last = root / f"etc/bench/{_TARGETS - 1:02d}.conf"
    if f"value{next(number) - 1}\n" not in last.read_text():
        raise RuntimeError("the event did not write what was set")
    return {name: values[0] for name, values in medians.items()}


def _make_event(root: Path) -> None:
    site = root / "etc/smeconf"
    for index in range(_TARGETS):
        target = f"etc/bench/{index:02d}.conf"
        entry = site / "events/bench/templates2expand" / target
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.touch()
        folder = site / "templates-custom" / target
        folder.mkdir(parents=True)
        for number in range(_FRAGMENTS):
            text = _FRAGMENT.format(number=number, target=target)
            (folder / f"{number}0part").write_text(text)
