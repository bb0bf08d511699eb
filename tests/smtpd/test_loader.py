"""From a directory to plugins: what is loaded, and every fault by file and line."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from smeconf.events.changes import Change
from smeconf.events.install import Install
from smeconf.smtpd.config import ConfigError
from smeconf.smtpd.loader import Configuration, known_plugins
from smeconf.smtpd.loader import load as load_directory
from smeconf.system import FileState, System
from tests.support.config import Machine
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
        peers__local="queue/smtp-forward 127.0.0.1 timeout x\n'open",
        dnsbl_zones="list.test",
    )

    assert found == [
        "peers/0:1: no option onyl; there are: only",
        "peers/0:2: there is no plugin nosuch",
        "peers/0:3: queue/maildir: needs a directory",
        "peers/local:1: timeout: 'x' is no whole number",
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


# While files are installed


def test_load_during_installs_never_gets_a_mix(tmp_path: Path) -> None:
    """Every load is one whole, as one of the installs had left it."""
    machine = Machine(tmp_path)
    folder = "var/service/qpsmtpd/config"
    place = machine.write(f"{folder}/me", "m0.test\n").parent
    machine.write(f"{folder}/peers/0", "queue/maildir m0\n")
    stop = threading.Event()
    installs = 0
    found: set[tuple[str, str]] = set()
    rounds = 0

    def install() -> None:
        nonlocal installs
        while not stop.is_set():
            installs += 1
            install_once(machine, folder, installs)

    thread = threading.Thread(target=install)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)  # so that they really meet
    thread.start()
    try:
        while (rounds < 300 or installs < 60) and thread.is_alive():
            found.add(as_one(load_directory(str(place), str(tmp_path))))
            rounds += 1
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)

    assert installs >= 60  # none has failed
    assert len(found) > 20
    assert [whole for whole, _ in found if "," in whole] == []
    # Each has one name.
    assert len({whole for whole, _ in found}) == len(found)
    assert len({name for _, name in found}) == len(found)


def install_once(machine: Machine, folder: str, number: int) -> None:
    """Change what is there; make a list of peers each second time, or remove it."""
    owner = os.geteuid(), os.getegid()
    texts = {
        "me": f"m{number}.test\n",
        "peers/0": f"queue/maildir m{number}\n",
        "peers/192.0": f"queue/maildir m{number}\n" if number % 2 else None,
        "smtpgreeting": f"m{number}\n",
    }
    changes = [
        Change(
            f"{folder}/{name}",
            str(machine.path(f"{folder}/{name}")),
            System().find(str(machine.path(f"{folder}/{name}"))),
            None if text is None else FileState(text.encode(), 0o644, *owner),
            whole=str(machine.path(folder)),
        )
        for name, text in texts.items()
    ]
    changes = [change for change in changes if change.old or change.new]
    install = Install.of(changes, machine.paths, System(), "test")
    install.put_in_place(changes)
    install.commit() if number % 3 else install.undo()


def as_one(loaded: Configuration) -> tuple[str, str]:
    """Return the numbers of the installs that made it, and the name of the whole."""
    (old, *others) = [plugin.settings.directory for plugin in loaded.plugins()]
    numbers = {old, *others, loaded.settings.me.removesuffix(".test")}
    if loaded.settings.greeting != loaded.settings.me:
        numbers.add(loaded.settings.greeting)
    is_odd = int(old[1:]) % 2
    if len(others) != is_odd:
        numbers.add("peers")
    return ",".join(sorted(numbers)), loaded.generation
