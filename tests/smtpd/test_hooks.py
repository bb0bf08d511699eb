"""Chains of hooks: whose answer counts, and what a broken plugin does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from smeconf.dns import Resolver
from smeconf.smtpd.hooks import DECLINED, OK, Answer, PluginList, deny, denysoft
from smeconf.smtpd.log import Log
from smeconf.smtpd.plugin import Context, Plugin
from smeconf.smtpd.state import Connection


class Says(Plugin):
    """Answers what it is told to, and notes that it was asked."""

    @dataclass(frozen=True)
    class Settings:
        answer: object = DECLINED

    def hook_noop(self, connection: Connection) -> Answer:
        asked.append(self.name)
        if isinstance(self.settings.answer, Exception):
            raise self.settings.answer
        return self.settings.answer  # type: ignore[no-any-return]

    async def hook_vrfy(self, connection: Connection) -> Answer:
        await asyncio.sleep(0)
        return self.hook_noop(connection)

    def hook_deny(self, connection: Connection, plugin: str, answer: Answer) -> None:
        self.hook_noop(connection)


asked: list[str] = []


def plugins(tmp_path: Path, **answers: object) -> PluginList:
    asked.clear()
    context = Context("mx", str(tmp_path), "/", Resolver([("127.0.0.1", 9)]), Log(7))
    made = [Says(name, Says.Settings(what), context) for name, what in answers.items()]
    return PluginList(made)


def decide(chain: PluginList, hook: str) -> tuple[Answer, str]:
    async def work() -> Any:
        return await chain.decide(hook, Connection("1.1", "192.0.2.1", 25))

    answer, plugin = asyncio.run(work())
    return answer, plugin.name if plugin else ""


@pytest.mark.parametrize("hook", ["noop", "vrfy"])
def test_first_answer_other_than_declined_wins(tmp_path: Path, hook: str) -> None:
    no = denysoft("later")
    chain = plugins(tmp_path, a=DECLINED, b=no, c=OK, d=deny("never"))

    assert decide(chain, hook) == (no, "b")
    assert asked == ["a", "b"]


def test_nobody_decides_when_all_decline(tmp_path: Path) -> None:
    assert decide(plugins(tmp_path, a=DECLINED), "noop") == (DECLINED, "")
    assert decide(plugins(tmp_path), "noop") == (DECLINED, "")


@pytest.mark.parametrize("hook", ["noop", "vrfy"])
@pytest.mark.parametrize("fault", [RuntimeError("broken"), None, "yes"])
def test_plugin_that_fails_is_logged_and_passed_over(
    tmp_path: Path, hook: str, fault: object, capfd: pytest.CaptureFixture[str]
) -> None:
    chain = plugins(tmp_path, a=fault, b=OK)

    assert decide(chain, hook) == (OK, "b")
    log = capfd.readouterr().err
    assert f"1.1 ({hook}) a: error, " in log
    assert "(test_hooks.py:" in log or "(hooks.py:" in log
    assert "Traceback" in log


def test_all_plugins_are_informed_whatever_one_does(tmp_path: Path) -> None:
    chain = plugins(tmp_path, a=OK, b=RuntimeError("broken"), c=DECLINED)

    asyncio.run(chain.inform("deny", Connection("1.1", "::1", 25), "a", deny("no")))

    assert asked == ["a", "b", "c"]


def test_list_knows_which_hooks_it_has(tmp_path: Path) -> None:
    chain = plugins(tmp_path, a=OK)

    assert chain.has("noop")
    assert not chain.has("rcpt")
