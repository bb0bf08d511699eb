"""Hooks and verdicts in qpsmtpd's names, and the chain that runs them.

A plugin's ``hook_NAME`` methods run in the order of the plugin list.  The first answer
other than DECLINED ends a hook.  A plugin that fails is logged and passed over: mail
is not refused, nor accepted, for a bug of ours.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

    from smeconf.smtpd.plugin import Plugin
    from smeconf.smtpd.state import Connection
    from smeconf.smtpd.stats import Meter, Stats


class Verdict(enum.Enum):
    """What a hook says; the numbers are qpsmtpd's, as statistics read them."""

    OK = 900
    DENY = 901
    DENYSOFT = 902
    DENY_DISCONNECT = 903
    DENYSOFT_DISCONNECT = 904
    DECLINED = 909
    DONE = 910


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict and the text that goes with it.

    ``text`` is for the client, a line for each line of the reply; empty means the
    standard text.  ``log_text`` is for our log where that should say more.
    ``is_denial`` says that this refuses, for now or for good.
    """

    verdict: Verdict
    text: str = ""
    log_text: str = ""
    is_denial: bool = field(init=False)

    def __post_init__(self) -> None:
        # Asked several times a message, of answers that are mostly constants.
        object.__setattr__(self, "is_denial", self.verdict in _DENIALS)


_DENIALS = {
    Verdict.DENY,
    Verdict.DENYSOFT,
    Verdict.DENY_DISCONNECT,
    Verdict.DENYSOFT_DISCONNECT,
}

DECLINED = Answer(Verdict.DECLINED)
OK = Answer(Verdict.OK)
DONE = Answer(Verdict.DONE)


def ok(text: str) -> Answer:
    """Return a positive answer with a text of its own."""
    return Answer(Verdict.OK, text)


def deny(text: str) -> Answer:
    """Return a refusal for good."""
    return Answer(Verdict.DENY, text)


def denysoft(text: str) -> Answer:
    """Return a refusal for now."""
    return Answer(Verdict.DENYSOFT, text)


# In the order in which they fire.  Those that decide return an Answer; those that
# inform return nothing.
DECIDING = (
    "connect",
    "helo",
    "ehlo",
    "auth",
    "mail",
    "rcpt",
    "data",
    "data_post",
    "queue",
    "vrfy",
    "noop",
    "unrecognized_command",
)
INFORMING = (
    "data_post_headers",
    "queue_post",
    "reset_transaction",
    "deny",
    "disconnect",
)
HOOKS = frozenset(DECIDING + INFORMING)

Hook = Callable[..., "Answer | Awaitable[Answer]"]


class PluginList:
    """The plugins of one kind of client, in order, with their hooks as chains."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._stats: Stats | None = None
        self._chains: dict[str, tuple[tuple[Plugin, Hook, Meter | None], ...]] = {
            name: tuple(
                (plugin, hook, None)
                for plugin in plugins
                if (hook := getattr(plugin, "hook_" + name, None)) is not None
            )
            for name in HOOKS
        }

    def measure(self, stats: Stats) -> None:
        """Count verdicts and the time they take; called in each process that serves."""
        self._stats = stats
        self._chains = {
            name: tuple(
                (plugin, hook, stats.meter(plugin.name, name))
                for plugin, hook, _ in chain
            )
            for name, chain in self._chains.items()
        }

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter of the server's own (``stats.NAMES``)."""
        if self._stats is not None:
            self._stats.count(name, number)

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """What encryption is offered with; None: it is not."""
        for plugin in self.plugins:
            if plugin.tls_context is not None:
                return plugin.tls_context
        return None

    def has(self, name: str) -> bool:
        """Tell whether any plugin hooks ``name``."""
        return bool(self._chains[name])

    async def decide(
        self, name: str, connection: Connection, *arguments: Any
    ) -> tuple[Answer, Plugin | None]:
        """Run a deciding hook; return its answer and the plugin that gave it."""
        connection.hook = name
        for plugin, hook, meter in self._chains[name]:
            began = perf_counter()
            try:
                answer = hook(connection, *arguments)
                if not isinstance(answer, Answer):
                    answer = await answer
                if meter is not None:
                    meter.add(answer.verdict, perf_counter() - began)
                if answer.verdict is not Verdict.DECLINED:
                    return answer, plugin
            except Exception as error:
                plugin.log_bug(connection, error)
                if meter is not None:
                    meter.add(None, perf_counter() - began)
        return DECLINED, None

    async def inform(self, name: str, connection: Connection, *arguments: Any) -> None:
        """Run a hook that only informs: all of its plugins, whatever one does."""
        before = connection.hook
        connection.hook = name
        for plugin, hook, meter in self._chains[name]:
            began = perf_counter()
            verdict: Verdict | None = Verdict.DECLINED
            try:
                waiting = hook(connection, *arguments)
                if waiting is not None and not isinstance(waiting, Answer):
                    await waiting
            except Exception as error:
                plugin.log_bug(connection, error)
                verdict = None
            if meter is not None:
                meter.add(verdict, perf_counter() - began)
        connection.hook = before
