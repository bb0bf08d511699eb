"""auth_file: lets in whom the password file knows."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from smeconf.smtpd.hooks import DECLINED, OK, Answer, Verdict
from smeconf.smtpd.passwords import PASSWORD_FILE, PasswordFile, hash_password
from smeconf.smtpd.plugins.auth import auth_file
from smeconf.smtpd.plugins.auth.auth_file import AuthFile
from smeconf.smtpd.sasl import Credentials
from smeconf.smtpd.state import Connection
from tests.support.config import Machine
from tests.support.smtp import SECONDS, Conversation, Filter, load

SESAME = hash_password("sesame")
QUICK = "first_delay_ms 0"


class Client(Connection):
    """A client that has failed to log in before."""

    auth_failures = 0


def passwd(tmp_path: Path) -> PasswordFile:
    return PasswordFile(str(tmp_path / "root" / PASSWORD_FILE))


@pytest.fixture(autouse=True)
def ann(tmp_path: Path) -> PasswordFile:
    """The password file, in which there is ann."""
    file = passwd(tmp_path)
    file.put("ann", SESAME, is_new=True)
    return file


def plugin_of(tmp_path: Path, options: str = QUICK) -> AuthFile:
    configuration = load(tmp_path, {"plugins": f"auth/auth_file {options}\nrcpt_ok"})
    (plugin,) = (p for p in configuration.plugins() if isinstance(p, AuthFile))
    return plugin


def asked(
    plugin: AuthFile, *logins: tuple[str, str], failures: int = 0
) -> list[Answer]:
    """What each client hears that logs in, all of them at once."""

    async def work() -> list[Answer]:
        client = Client("1.1", "192.0.2.1", 25)
        client.hook = "auth"
        client.auth_failures = failures
        hooks = (plugin.hook_auth(client, Credentials(*login)) for login in logins)
        async with asyncio.timeout(SECONDS):
            return await asyncio.gather(*hooks)

    return asyncio.run(work())


def test_client_with_the_right_password_is_let_in_and_no_other(tmp_path: Path) -> None:
    logins = [("ann", "sesame"), ("ann", "wrong"), ("Ann", "sesame"), ("bob", "sesame")]

    answers = asked(plugin_of(tmp_path), *logins)

    wrong = Answer(Verdict.DENY)
    assert answers == [OK, wrong, DECLINED, DECLINED]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_client_that_has_logged_in_may_relay(tmp_path: Path, mechanism: str) -> None:
    files = {"plugins": f"auth/auth_file {QUICK}\nrcpt_ok", "tls_before_auth": "0"}

    def log_in(client: Conversation, password: str) -> str:
        if mechanism == "PLAIN":
            text = b64encode(f"\0ann\0{password}".encode()).decode()
            return client.say(f"AUTH PLAIN {text}")
        words = [b64encode(word.encode()).decode() for word in ("ann", password)]
        return client.say("AUTH LOGIN", *words)

    with Conversation(load(tmp_path, files)) as client:
        assert "AUTH PLAIN LOGIN" in client.say("EHLO c")
        assert log_in(client, "wrong").startswith("535 5.7.8 ")
        client.say("MAIL FROM:<a@x.test>")
        assert client.say("RCPT TO:<b@far.test>").startswith("550")
        client.say("RSET")
        assert log_in(client, "sesame").startswith("235 2.7.0 ")
        client.say("MAIL FROM:<a@x.test>")
        assert client.say("RCPT TO:<b@far.test>").startswith("250")


def test_name_that_is_not_there_is_answered_like_a_wrong_password(
    tmp_path: Path,
) -> None:
    files = {"plugins": f"auth/auth_file {QUICK}\nrcpt_ok", "tls_before_auth": "0"}
    replies = []
    with Conversation(load(tmp_path, files)) as client:
        client.say("EHLO c")
        for user in ("ann", "bob"):
            text = b64encode(f"\0{user}\0wrong".encode()).decode()
            replies.append(client.say(f"AUTH PLAIN {text}"))

    assert replies[0] == replies[1]


def test_client_of_a_running_filter_logs_in_while_others_fail(tmp_path: Path) -> None:
    files = {
        "plugins": "auth/auth_file first_delay_ms 2000\nrcpt_ok",
        "tls_before_auth": "0",
    }
    wrong, right = (
        b64encode(f"\0ann\0{word}".encode()).decode() for word in ("wrong", "sesame")
    )
    with Filter(tmp_path, files) as filter:
        guesser, client = filter.connect(), filter.connect("127.0.0.2")
        for one in (guesser, client):
            assert one.read().startswith("220")
            one.say("EHLO c")
        guesser.send(f"AUTH PLAIN {wrong}\r\n")
        filter.wait_for("fail, user ann")

        assert client.say(f"AUTH PLAIN {right}").startswith("235 ")

        filter.wait_for("pass, user ann")
        guesser.reset()
        assert "sesame" not in filter.log
        assert right not in filter.log


def test_change_of_the_file_counts_at_once(tmp_path: Path, ann: PasswordFile) -> None:
    plugin = plugin_of(tmp_path)
    assert asked(plugin, ("bob", "sesame")) == [DECLINED]

    ann.put("bob", SESAME, is_new=True)
    assert asked(plugin, ("bob", "sesame")) == [OK]

    ann.delete("bob")
    assert asked(plugin, ("bob", "sesame")) == [DECLINED]


def test_nobody_logs_in_and_mail_goes_on_while_there_is_no_file(
    tmp_path: Path, ann: PasswordFile
) -> None:
    os.unlink(ann.path)
    plugin = plugin_of(tmp_path)

    assert asked(plugin, ("ann", "sesame")) == [DECLINED]
    assert plugin.warnings() == []


def test_file_that_cannot_be_read_puts_logins_off(
    tmp_path: Path, ann: PasswordFile, capfd: pytest.CaptureFixture[str]
) -> None:
    os.unlink(ann.path)
    os.mkdir(ann.path)
    plugin = plugin_of(tmp_path)

    (answer,) = asked(plugin, ("ann", "sesame"))

    assert answer.verdict is Verdict.DENYSOFT
    assert f"auth/auth_file: error, {ann.path}: is no plain file" in (
        capfd.readouterr().err
    )
    assert plugin.warnings() == [f"{ann.path}: is no plain file: nobody can log in"]


def test_lines_that_do_not_count_are_said_when_the_filter_starts(
    tmp_path: Path, ann: PasswordFile
) -> None:
    with open(ann.path, "a") as file:
        file.write("bob:$6$salt$hash\n")
    os.chmod(ann.path, 0o644)

    assert plugin_of(tmp_path).warnings() == [
        f"{ann.path}:2: is no scrypt hash: set the password anew",
        f"{ann.path}: is open to everybody: chmod o= it",
    ]


def test_log_tells_the_name_and_never_the_password(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked(plugin_of(tmp_path), ("ann", "sesame"), ("ann", "guess1"), ("bob", "guess2"))

    log = capfd.readouterr().err
    assert "1.1 (auth) auth/auth_file: pass, user ann\n" in log
    assert "1.1 (auth) auth/auth_file: fail, user ann\n" in log
    assert "1.1 (auth) auth/auth_file: fail, user bob\n" in log
    for password in ("sesame", "guess1", "guess2"):
        assert password not in log
        assert b64encode(password.encode()).decode()[:6] not in log


@pytest.mark.parametrize(
    "login",
    [("x" * 257, "sesame"), ("ä" * 129, "sesame"), ("ann", "x" * 1025)],
)
def test_what_is_too_long_is_refused_without_a_hash(
    tmp_path: Path, login: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise AssertionError("is hashed")

    monkeypatch.setattr(auth_file, "verify", fail)

    assert asked(plugin_of(tmp_path), login) == [Answer(Verdict.DENY)]


@pytest.mark.parametrize("login", [("ann", "wrong"), ("bob", "sesame")])
@pytest.mark.parametrize(
    ("failures", "least"), [(0, 0.2), (1, 0.4), (2, 0.5), (1000, 0.5)]
)
def test_failure_is_answered_later_each_time(
    tmp_path: Path, login: tuple[str, str], failures: int, least: float
) -> None:
    plugin = plugin_of(tmp_path, "first_delay_ms 200 last_delay_ms 500")
    begun = time.monotonic()

    asked(plugin, login, failures=failures)

    assert least <= time.monotonic() - begun < SECONDS


def test_success_is_not_put_off(tmp_path: Path) -> None:
    plugin = plugin_of(tmp_path, "first_delay_ms 60000 last_delay_ms 60000")

    assert asked(plugin, ("ann", "sesame")) == [OK]


def test_delay_is_a_second_where_nothing_else_is_said(tmp_path: Path) -> None:
    plugin = plugin_of(tmp_path, "")
    client = Client("1.1", "192.0.2.1", 25)
    delays = []
    for client.auth_failures in range(6):
        delays.append(plugin._delay_seconds(client))

    assert delays == [1, 2, 4, 8, 8, 8]


def test_names_that_are_not_there_cost_a_hash_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes: list[str] = []
    monkeypatch.setattr(auth_file, "verify", lambda _, stored: hashes.append(stored))

    asked(plugin_of(tmp_path), ("bob", "sesame"))

    assert hashes == [auth_file.UNKNOWN]


def test_no_more_than_two_passwords_are_verified_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = threading.Lock()
    both = threading.Barrier(2)
    now, most = 0, 0

    def work(*_: object) -> bool:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait(SECONDS)  # breaks, if they came one by one
        with lock:
            now -= 1
        return False

    monkeypatch.setattr(auth_file, "verify", work)

    lists = [plugin_of(tmp_path), plugin_of(tmp_path)]  # a plugin each
    client = Client("1.1", "192.0.2.1", 25)

    async def log_in() -> None:
        login = Credentials("ann", "x")
        await asyncio.gather(*(one.hook_auth(client, login) for one in lists * 4))

    asyncio.run(log_in())

    assert most == 2


def test_loop_goes_on_while_passwords_are_verified(tmp_path: Path) -> None:
    plugin = plugin_of(tmp_path)

    async def work() -> int:
        client = Client("1.1", "192.0.2.1", 25)
        turns = 0
        login = asyncio.ensure_future(
            plugin.hook_auth(client, Credentials("ann", "sesame"))
        )
        while not login.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(work()) > 10


def test_clients_that_would_wait_for_seconds_are_put_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth_file, "MAX_WAITING", 3)
    plugin = plugin_of(tmp_path)

    answers = asked(plugin, *[("ann", "sesame")] * 5)

    assert answers[:3] == [OK] * 3
    assert {answer.verdict for answer in answers[3:]} == {Verdict.DENYSOFT}
    assert asked(plugin, ("ann", "sesame")) == [OK]


def test_clients_of_other_networks_cannot_log_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = plugin_of(tmp_path, "networks 127.0.0.1,10.0.0.0/255.0.0.0")
    inside, outside = Connection("1", "10.1.2.3", 25), Connection("2", "192.0.2.1", 25)

    assert plugin.offers_login_to(inside)
    assert not plugin.offers_login_to(outside)
    assert asked(plugin, ("ann", "sesame")) == [DECLINED]  # from 192.0.2.1


def test_network_that_is_none_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"plugins:1: networks: '10.0' "):
        plugin_of(tmp_path, "networks 10.0")


@pytest.mark.parametrize(
    ("properties", "line"),
    [
        (
            "",
            "auth/auth_file networks 127.0.0.1,::1,10.0.0.0/255.0.0.0,"
            "192.168.1.0/255.255.255.0",
        ),
        ("AuthAccess|public", "auth/auth_file"),
        ("Authentication|disabled|AuthAccess|public", None),
    ],
)
@pytest.mark.parametrize("peers", ["peers/0", "peers/local"])
def test_properties_say_from_where_clients_may_log_in(
    tmp_path: Path, properties: str, line: str | None, peers: str
) -> None:
    machine = Machine(tmp_path)
    name = "DomainName=here.test\nSystemName=mx\n"
    machine.records(f"{name}qpsmtpd=service|{properties}\n".replace("|\n", "\n"))
    networks = (
        "10.0.0.0=network|Mask|255.0.0.0",
        "192.168.1.0=network|Mask|255.255.255.0",
    )
    machine.records("\n".join(networks) + "\n", "networks")

    text = machine.expand(f"var/service/qpsmtpd/config/{peers}")

    found: list[Any] = [one for one in text.splitlines() if one.startswith("auth/")]
    assert found == ([line] if line else [])
