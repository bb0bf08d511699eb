"""Checks: whoever will read a file says whether it can, before it is installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smeconf.events import EventError, check
from tests.support.config import Machine

CONFIG = "srv/config"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine where ``try`` changes ``etc/a`` and ``srv/config/b``."""
    machine = Machine(tmp_path)
    machine.records("Word=old\n")
    for target in ("etc/a", f"{CONFIG}/b"):
        machine.fragment(target, "template-begin", "")
        machine.fragment(target, "10", "{{ Word }}\n")
    machine.event("try", ["etc/a", f"{CONFIG}/b"])
    machine.signal("try")
    machine.records("Word=new\n")
    return machine


def check_file(machine: Machine, script: str, words: str = "") -> Path:
    """Have ``etc/a`` checked by a shell script; ``$1`` is the file."""
    return _check(machine, "etc/a", "check", script, words)


def check_directory(machine: Machine, script: str) -> Path:
    """Have ``srv/config`` checked as a whole; ``$1`` is the directory."""
    return _check(machine, CONFIG, "check_directory", script, "")


def _check(machine: Machine, place: str, key: str, script: str, words: str) -> Path:
    name = f"check-{key}"
    path = machine.write(name, f"#!/bin/sh\n{script}\n", 0o755)
    machine.fragment(place, "metadata.toml", f'{key} = ["{path}", "{{}}"{words}]')
    return path


def test_check_of_a_target_gets_the_file_as_it_will_be(machine: Machine) -> None:
    seen = machine.path("seen")
    check_file(machine, f'cp "$1" {seen}; echo "${{1##*/}} $2" >>{seen}', ', "-x"')

    machine.signal("try")

    assert seen.read_text() == "new\na -x\n"


def test_check_gets_what_an_action_gets(machine: Machine) -> None:
    seen = machine.path("seen")
    check_file(machine, f'echo "$EVENT $SMECONF_ROOT" >{seen}; smeconf --help >>{seen}')

    machine.signal("try")

    assert seen.read_text().startswith(f"try {machine.root}\nUsage: ")


def test_check_that_refuses_stops_the_event_and_names_the_real_file(
    machine: Machine,
) -> None:
    check_file(machine, 'echo "$1:1: no such word" >&2; exit 1')

    with pytest.raises(EventError) as caught:
        machine.signal("try")

    assert str(caught.value) == f"{machine.path('etc/a')}:1: no such word"
    assert machine.read("etc/a") == "old\n"
    assert machine.read(f"{CONFIG}/b") == "old\n"


def test_check_that_refuses_without_a_word_is_named(machine: Machine) -> None:
    check_file(machine, "exit 7", ', "-x"')

    with pytest.raises(EventError) as caught:
        machine.signal("try")

    assert str(caught.value) == "/etc/a: check-check -x refused it (exit status 7)"


def test_check_that_is_not_there_is_named_with_what_it_should_check(
    machine: Machine,
) -> None:
    check_file(machine, "").unlink()

    with pytest.raises(EventError) as caught:
        machine.signal("try")

    assert str(caught.value) == (
        f"{machine.path('check-check')}: No such file or directory "
        "(the check of /etc/a)"
    )


def test_check_is_not_run_for_a_target_that_does_not_change(machine: Machine) -> None:
    machine.signal("try")
    check_file(machine, "exit 1")
    check_directory(machine, "exit 1")

    machine.signal("try")


def test_check_of_a_directory_gets_all_of_it_with_links_followed(
    machine: Machine,
) -> None:
    seen = machine.path("seen")
    machine.write(f"{CONFIG}/peers/0", "by hand\n")
    machine.path(f"{CONFIG}/peers/local").symlink_to("0")
    machine.path(f"{CONFIG}/far").symlink_to(machine.write("elsewhere/far", "far\n"))
    machine.path(f"{CONFIG}/folder").symlink_to(machine.path("elsewhere"))
    machine.path(f"{CONFIG}/dangling").symlink_to("nowhere")
    os.mkfifo(machine.path(f"{CONFIG}/pipe"))
    script = f'cd "$1"; find . -type l -o -type p >{seen}; grep -r . . | sort >>{seen}'
    check_directory(machine, script)

    machine.signal("try")

    assert seen.read_text().splitlines() == [
        *("./b:new", "./far:far", "./folder/far:far"),
        *("./peers/0:by hand", "./peers/local:by hand"),
    ]


def test_check_of_a_directory_does_not_see_what_is_removed(machine: Machine) -> None:
    seen = machine.path("seen")
    machine.fragment(f"{CONFIG}/b", "metadata.toml", "delete = true")
    check_directory(machine, f'ls "$1" >{seen}')

    machine.signal("try")

    assert seen.read_text() == ""
    assert not machine.path(f"{CONFIG}/b").exists()


def test_check_that_writes_spoils_nothing(machine: Machine) -> None:
    """Neither the live files, nor what is installed, nor what links lead to."""
    far = machine.write("elsewhere/far", "far\n")
    machine.path(f"{CONFIG}/far").symlink_to(far)
    check_file(machine, 'echo spoiled >"$1"')
    check_directory(machine, 'cd "$1"; for f in b far made; do echo spoiled >$f; done')

    machine.signal("try")

    assert machine.read("etc/a") == "new\n"
    assert machine.read(f"{CONFIG}/b") == "new\n"
    assert far.read_text() == "far\n"
    assert not machine.path(f"{CONFIG}/made").exists()


def test_check_of_a_plan_writes_nothing_either(machine: Machine) -> None:
    check_file(machine, 'echo spoiled >"$1"')

    result = machine.run("signal-event try --plan", check=False)

    assert result.status == 2
    assert "accepted by the check of /etc/a: check-check\n" in result.output
    assert machine.read("etc/a") == "old\n"


def test_check_that_hangs_is_killed_with_all_that_it_started(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "CHECK_SECONDS", 1.0)
    pid = machine.path("pid")
    path = check_file(machine, f"sleep 60 & echo $! >{pid}; wait")

    with pytest.raises(EventError) as caught:
        machine.signal("try")

    assert str(caught.value) == f"{path}: was killed after 1 s (the check of /etc/a)"
    assert has_ended(int(pid.read_text()))
    assert machine.read("etc/a") == "old\n"


def has_ended(pid: int) -> bool:
    """Tell whether a process is gone, or waits to be noticed by its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"
