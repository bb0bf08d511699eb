"""From a directory to plugins: what is loaded, and every fault by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.smtpd.config import ConfigError
from smeconf.smtpd.loader import Configuration, known_plugins
from tests.support.smtp import load


def faults(tmp_path: Path, **files: str) -> list[str]:
    """What is wrong, the directory's name left out."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {name.replace("__", "/"): text for name, text in files.items()})
    return str(caught.value).replace(f"{tmp_path}/config/", "").splitlines()


def names(configuration: Configuration, remote: str) -> list[str]:
    return [plugin.name for plugin in configuration.plugins_for(remote).plugins]


def test_plugins_alone_are_one_list_for_all(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"plugins": "# one\nrelay\n\nrcpt_ok\nqueue/null"})

    for remote in ("127.0.0.1", "192.0.2.1", "2001:db8::1"):
        assert names(loaded, remote) == ["relay", "rcpt_ok", "queue/null"]


def test_module_of_a_plugin_has_underscores_for_hyphens(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"plugins": "queue/smtp-forward 127.0.0.1 26"})

    assert names(loaded, "192.0.2.1") == ["queue/smtp-forward"]


def test_plugin_may_stand_twice_with_numbers(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"plugins": "queue/maildir:1 a\nqueue/maildir:2 b"})

    assert names(loaded, "::1") == ["queue/maildir:1", "queue/maildir:2"]


def test_words_may_be_quoted(tmp_path: Path) -> None:
    (plugin,) = load(tmp_path, {"plugins": "queue/maildir 'my mail'"}).plugins()

    assert plugin.settings.directory == "my mail"


def test_misspelt_plugin_is_named_with_the_nearest(tmp_path: Path) -> None:
    assert faults(tmp_path, plugins="relay\nrcptok") == [
        "plugins:2: there is no plugin rcptok; did you mean rcpt_ok?"
    ]
    assert faults(tmp_path, plugins="zzz") == ["plugins:1: there is no plugin zzz"]


@pytest.mark.parametrize("name", ["../relay", "queue", "queue/", "os", "relay.py", "/"])
def test_only_plugins_are_loaded(tmp_path: Path, name: str) -> None:
    (fault,) = faults(tmp_path, plugins=name)

    assert fault.startswith(f"plugins:1: there is no plugin {name}")


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        peers__0="relay onyl 1\nnosuch\nqueue/maildir",
        peers__local="queue/smtp-forward 127.0.0.1 smtp\n'open",
        dnsbl_zones="list.test",
    )

    assert found == [
        "peers/0:1: no option onyl; there are: only",
        "peers/0:2: there is no plugin nosuch",
        "peers/0:3: queue/maildir: needs a directory",
        "peers/local:1: port: 'smtp' is no whole number",
        "peers/local:2: No closing quotation",
    ]


def test_line_with_other_characters_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, plugins="relay\u00a0only 1") == [
        "plugins:1: a plugin's line is printable ASCII"
    ]


def test_wrong_zone_is_named_where_it_stands(tmp_path: Path) -> None:
    (fault,) = faults(
        tmp_path, plugins="dnsbl", dnsbl_zones="a.test\n-b.test: no mail from you"
    )

    assert fault.startswith("dnsbl_zones:2: '-b.test' is not a zone")


def test_wrong_entry_of_a_list_is_named_where_it_stands(tmp_path: Path) -> None:
    assert faults(tmp_path, relayclients="127.\nlocalhost") == [
        "relayclients:2: 'localhost' does not appear to be an IPv4 or IPv6 address"
    ]


def test_naughty_must_follow_what_rejects_naughty(tmp_path: Path) -> None:
    files = {"dnsbl_zones": "list.test"}
    assert faults(tmp_path, plugins="dnsbl reject naughty\nrcpt_ok", **files) == [
        "plugins:1: dnsbl rejects naughty, but no plugin naughty follows"
    ]

    load(tmp_path, {"plugins": "dnsbl reject naughty\nnaughty\nrcpt_ok", **files})


def test_rcpt_ok_stands_behind_all_that_judge_recipients(tmp_path: Path) -> None:
    assert faults(tmp_path, plugins="rcpt_ok\nrelay\nnaughty") == [
        "plugins:1: rcpt_ok must stand behind relay",
        "plugins:1: rcpt_ok must stand behind naughty",
    ]

    load(tmp_path, {"plugins": "relay\nnaughty\nrcpt_ok\ndnsbl\nqueue/null"})


def test_list_for_the_world_must_be_there(tmp_path: Path) -> None:
    assert faults(tmp_path, peers__local="relay") == [
        "peers/0: missing: the list for all"
    ]


PEERS = {
    "peers/0": "queue/maildir world",
    "peers/local": "queue/maildir local",
    "peers/192.0": "queue/maildir far",
    "peers/192.0.2": "queue/maildir near",
    "peers/192.0.2.7": "queue/maildir one",
    "peers/2001:db8": "queue/maildir six",
    "relayclients": "127.\n192.168.0.0/16",
    "norelayclients": "192.168.9.9",
}
CHOICES = [
    ("127.0.0.1", "local"),
    ("192.168.1.1", "local"),
    ("192.168.9.9", "world"),
    ("192.0.2.7", "one"),
    ("192.0.2.70", "near"),
    ("192.0.3.7", "far"),
    ("192.1.2.3", "world"),
    ("2001:db8::1", "six"),
    ("2001:db9::1", "world"),
    ("0.0.0.1", "world"),
]


@pytest.mark.parametrize(("remote", "folder"), CHOICES)
def test_client_gets_the_list_of_its_longest_prefix(
    tmp_path: Path, remote: str, folder: str
) -> None:
    (plugin,) = load(tmp_path, PEERS).plugins_for(remote).plugins

    assert plugin.settings.directory == folder


def test_prefixes_count_without_a_list_for_local_clients(tmp_path: Path) -> None:
    files = {name: PEERS[name] for name in ("peers/0", "peers/192.0")}

    (plugin,) = load(tmp_path, files).plugins_for("192.0.2.1").plugins

    assert plugin.settings.directory == "far"


def test_all_plugins_are_known_by_name() -> None:
    assert {"dnsbl", "queue/maildir", "logging/logterse"} <= set(known_plugins())
