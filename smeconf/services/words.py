"""SME's action words: what an event may tell a service, and what that means.

There is one vocabulary, so that an event need not know who makes a service run: the
words that SME had for its supervised services (``up``, ``sigusr1``, ``once``) and those
of its systemd and init services (``restart``, ``reload-or-restart``, ``enable -now``,
``sigXXX``).  It has two meanings: steps of our own filter, and calls of systemctl.

    filter_steps("qpsmtpd", ["sigusr1"], True)   -> (Step.RELOAD,)
    unit_calls("dovecot", ["sigusr1"], True)     -> (("start",), ("reload-or-restart",))
    unit_calls("dovecot", ["sigusr1"], False)    -> (("stop",),)
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Sequence
from enum import Enum

from smeconf.database.schema import nearest
from smeconf.services.service import ServiceError

FILTER = "qpsmtpd"


class Step(Enum):
    """One thing that can be done to our own filter."""

    RELOAD = "reload"
    START = "start"
    STOP = "stop"
    KILL = "kill"
    ENABLE = "enable"
    DISABLE = "disable"


def _alike(words: str, *meaning: Step) -> dict[str, tuple[Step, ...]]:
    return dict.fromkeys(words.split(), meaning)


# Every word that has a process end and be started again is the graceful reload: none of
# them cuts a connection.  But for `kill`, which is for a filter that hangs.
_FILTER_STEPS: dict[str, tuple[Step, ...]] = {
    **_alike("restart reload adjust graceful try-restart", Step.RELOAD),
    **_alike("reload-or-restart reload-or-try-restart", Step.RELOAD),
    **_alike("sighup sigusr1 sigusr2 sigterm sigint sigquit", Step.RELOAD),
    **_alike("interrupt quit", Step.RELOAD),
    **_alike("start up once", Step.START),
    **_alike("stop down exit", Step.STOP),
    **_alike("kill sigkill", Step.KILL, Step.START),
    "enable": (Step.ENABLE,),
    "enable -now": (Step.ENABLE, Step.START),
    "enable --now": (Step.ENABLE, Step.START),
    "disable": (Step.DISABLE,),
    "svdisable": (Step.DISABLE, Step.STOP),
}

_UNIT_CALLS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("start", "up", "once"), ("start",)),
    **dict.fromkeys(("stop", "down", "exit"), ("stop",)),
    **dict.fromkeys(("restart", "sigterm"), ("restart",)),
    "reload": ("reload",),
    **dict.fromkeys(
        ("adjust", "graceful", "sighup", "sigusr1", "sigusr2", "reload-or-restart"),
        ("reload-or-restart",),
    ),
    "try-restart": ("try-restart",),
    "reload-or-try-restart": ("try-reload-or-restart",),
    "enable": ("enable",),
    "enable -now": ("enable", "--now"),
    "enable --now": ("enable", "--now"),
    "disable": ("disable",),
    "svdisable": ("disable", "--now"),
    # What runsv sends for its words.
    "interrupt": ("kill", "--signal=SIGINT"),
    "quit": ("kill", "--signal=SIGQUIT"),
    "kill": ("kill", "--signal=SIGKILL"),
    "alarm": ("kill", "--signal=SIGALRM"),
    "pause": ("kill", "--signal=SIGSTOP"),
}

# With one of these in its list an enabled service is not started first.
_DECIDING = frozenset(
    {"start", "restart", "reload", "reload-or-restart", "down", "stop", "once"}
    | {"up", "exit", "svdisable", "enable -now", "enable --now"}
)


def read_actions(path: str) -> tuple[str, ...]:
    """Return the actions of an entry of ``services2adjust``.

    It is a symlink whose text is the action, or a file with an action a line; blank
    lines and comments (``#``) say nothing.  Raises ServiceError naming an entry that
    cannot be read.
    """
    try:
        if os.path.islink(path):
            return parse_actions(os.readlink(path))
        with open(path, encoding="utf-8") as file:
            return parse_actions(file.read())
    except OSError as error:
        raise ServiceError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ServiceError(f"{path}: is not a text of actions, one a line") from error


def parse_actions(text: str) -> tuple[str, ...]:
    """Return the actions of a text, one a line; words of a line stay together."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return tuple(" ".join(words) for words in lines if words)


def check_words(name: str, actions: Sequence[str]) -> None:
    """Raise ServiceError where service ``name`` cannot be told one of ``actions``."""
    if name == FILTER:
        filter_steps(name, actions, True)
    else:
        unit_calls(name, actions, True)


def filter_steps(
    name: str, actions: Sequence[str], is_enabled: bool
) -> tuple[Step, ...]:
    """Return what to do to our filter, in order.

    Disabled, it is only stopped.  Enabled, it is not started unless a word says so:
    one that an administrator stopped stays so, where SME would bring it up.  No action
    at all starts it.

    Raises ServiceError for a word that is unknown or would hurt it.
    """
    steps: list[Step] = []
    for action in _as_actions(actions):
        meaning = _FILTER_STEPS.get(action)
        if meaning is None:
            raise ServiceError(_refusal(name, action, _FILTER_STEPS))
        steps += meaning
    if not is_enabled:
        return (Step.STOP,)
    return _merged(steps or [Step.START])


def unit_calls(
    name: str, actions: Sequence[str], is_enabled: bool
) -> tuple[tuple[str, ...], ...]:
    """Return the words for systemctl, the unit's name left out, in order.

    Disabled, a service is only stopped.  Enabled, it is started first unless a word
    decides otherwise.  Raises ServiceError for an unknown word.
    """
    actions = _as_actions(actions)
    calls = [_unit_call(name, action) for action in actions]
    if not is_enabled:
        return (("stop",),)
    if _DECIDING.isdisjoint(actions):
        calls.insert(0, ("start",))
    return tuple(calls)


def _as_actions(actions: Sequence[str]) -> Sequence[str]:
    """Take a text, too: a sequence of its letters is never meant."""
    return parse_actions(actions) if isinstance(actions, str) else actions


def _merged(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Drop what a neighbour does anyhow: a start of what runs is a reload."""
    merged: list[Step] = []
    for step in steps:
        last = merged[-1] if merged else None
        if step is last or (last is Step.START and step is Step.RELOAD):
            continue
        if last is Step.RELOAD and step is Step.START:
            merged.pop()
        merged.append(step)
    return tuple(merged)


def _unit_call(name: str, action: str) -> tuple[str, ...]:
    if action in _UNIT_CALLS:
        return _UNIT_CALLS[action]
    if _is_signal(action):
        return ("kill", f"--signal={action.upper()}")
    raise ServiceError(_refusal(name, action, _UNIT_CALLS))


def _is_signal(action: str) -> bool:
    return action.startswith("sig") and action.upper() in signal.Signals.__members__


def _refusal(name: str, action: str, known: Iterable[str]) -> str:
    if action in _UNIT_CALLS or _is_signal(action):
        return (
            f"{name}: action {action} would leave mail unserved: "
            f"restart reads the configuration anew, stop ends the filter"
        )
    return f"{name}: no action {action}{nearest(action, sorted(known))}"
