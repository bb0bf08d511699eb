"""``expand-template``: one target, outside of any event."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from smeconf.cli import expand_template
from smeconf.events.changes import Written, digest
from smeconf.system import FileState, System
from smeconf.templates import Metadata
from tests.support.config import BIN, SECONDS, Machine, Result

TARGETS = ("etc/a", "etc/b", "etc/new")
USERS = "ann=user|EmailForward|both\nbob=user|EmailForward|local\n"
EACH = 'each = "accounts/user"\noutput = "home/{key}/.forward"\n'


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with three templates, and the files of two, which differ."""
    machine = Machine(tmp_path)
    machine.records("Word=new\n")
    for target in TARGETS:
        machine.fragment(target, "template-begin", "")
        machine.fragment(target, "10", "{{ Word }}\n")
    for target in ("etc/a", "etc/b"):
        machine.write(target, "old\n", 0o640)
    ours = {target: digest(b"old\n") for target in ("etc/a", "etc/b")}
    Written(machine.paths, System()).note(ours)
    return machine


def say(machine: Machine, target: str, *lines: str) -> str:
    """Give a target its metadata; return the file that says it."""
    return str(machine.fragment(target, "metadata.toml", "\n".join(lines) + "\n"))


def files(machine: Machine) -> dict[str, object]:
    """Return all that lies below the root, but locks."""
    return {
        str(path.relative_to(machine.root)): machine.facts(
            str(path.relative_to(machine.root))
        )
        for path in machine.root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def refused(machine: Machine, line: str, status: int = 1) -> str:
    """Return why a command line was refused; nothing has changed."""
    before = files(machine)
    result = machine.run(f"expand-template {line}", check=False)
    assert (result.status, result.output) == (status, "")
    assert files(machine) == before
    return result.errors


# What is written


def test_one_file_is_written_and_keeps_its_mode(machine: Machine) -> None:
    machine.run("expand-template /etc/a")

    after = machine.facts("etc/a")
    assert after
    assert (after.data, after.mode) == (b"new\n", 0o640)
    assert after.owner == (os.geteuid(), os.getegid())
    assert machine.read("etc/b") == "old\n"


def test_new_file_gets_the_mode_of_its_metadata(machine: Machine) -> None:
    machine.run("expand-template /etc/new")
    assert machine.path("etc/new").stat().st_mode & 0o7777 == 0o644

    machine.path("etc/new").unlink()
    say(machine, "etc/new", 'mode = "0600"')
    machine.run("expand-template /etc/new")
    assert machine.path("etc/new").stat().st_mode & 0o7777 == 0o600


def test_mode_that_metadata_gives_counts_more_than_that_of_the_file(
    machine: Machine,
) -> None:
    """Where it gives what would be the default, too."""
    say(machine, "etc/a", 'mode = "0644"')

    machine.run("expand-template /etc/a")

    assert machine.path("etc/a").stat().st_mode & 0o7777 == 0o644


def test_file_that_is_right_is_not_touched_but_its_mode(machine: Machine) -> None:
    machine.write("etc/a", "new\n", 0o666)
    before = machine.facts("etc/a")
    machine.run("expand-template /etc/a")
    assert machine.facts("etc/a") == before

    say(machine, "etc/a", 'mode = "0600"')
    machine.run("expand-template /etc/a")

    after = machine.facts("etc/a")
    assert before
    assert after
    assert after.mode == 0o600
    assert (after.inode, after.mtime) == (before.inode, before.mtime)


class OtherMachine(System):
    """Knows two names."""

    def user_id(self, name: str) -> int:
        return {"root": 0, "mail": 8}[name]

    def group_id(self, name: str) -> int:
        return {"root": 0, "mail": 12}[name]


@pytest.mark.parametrize(
    ("said", "kept", "new"),
    [
        ([], (7, 7), (0, 0)),
        (["owner"], (8, 7), (8, 0)),
        (["group"], (7, 12), (0, 12)),
        (["owner", "group"], (8, 12), (8, 12)),
    ],
)
def test_owner_is_kept_where_metadata_is_silent(
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
    kept: tuple[int, int],
    new: tuple[int, int],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    old = FileState(b"", 0o640, 7, 7)
    metadata = Metadata(
        owner="mail" if "owner" in said else "root",
        group="mail" if "group" in said else "root",
        said=dict.fromkeys(said, "metadata.toml"),
    )

    for state, mode, owner in ((old, 0o640, kept), (None, 0o644, new)):
        found = expand_template._mode_and_owner(metadata, state, OtherMachine())
        assert found == (mode, *owner)


@pytest.mark.parametrize("key", ["owner", "group"])
def test_owner_that_the_machine_does_not_know_is_named(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    metadata = replace(Metadata(said={key: "/x/metadata.toml"}), **{key: "nobody"})

    with pytest.raises(expand_template._Refused) as caught:
        expand_template._mode_and_owner(metadata, None, OtherMachine())

    assert str(caught.value) == f"/x/metadata.toml: {key}: the machine has no nobody"


def test_output_names_the_file_that_is_written(machine: Machine) -> None:
    say(machine, "etc/a", 'output = "srv/a"')

    machine.run("expand-template /etc/a")

    assert machine.read("srv/a") == "new\n"
    assert machine.read("etc/a") == "old\n"


def test_file_that_is_to_go_is_removed(machine: Machine) -> None:
    say(machine, "etc/a", "delete = true")
    assert machine.run("expand-template --diff /etc/a").output == (
        "--- /etc/a\n+++ /etc/a\n@@ -1 +0,0 @@\n-old\n"
    )

    for _ in range(2):  # it may be gone already
        machine.run("expand-template /etc/a")
        assert not machine.path("etc/a").exists()


def test_each_record_gets_its_file(machine: Machine) -> None:
    machine.records(USERS, "accounts")
    machine.fragment("etc/a", "10", "{{ key }}: {{ record.EmailForward }}\n")
    say(machine, "etc/a", EACH)

    machine.run("expand-template /etc/a")

    assert machine.read("home/ann/.forward") == "ann: both\n"
    assert machine.read("home/bob/.forward") == "bob: local\n"
    shown = machine.run("expand-template --stdout /etc/a").output
    assert shown == "ann: both\nbob: local\n"


def test_filter_is_applied(machine: Machine) -> None:
    say(machine, "etc/a", 'filter = "line | upper"')

    assert machine.run("expand-template --stdout /etc/a").output == "NEW\n"


# Checks


CHECK = """\
#!/bin/sh
echo "$0 $*" >>"$SMECONF_ROOT/checked"
grep -q {} "$1" || {{ echo "$1: has no {}"; exit 3; }}
"""


def check_for(machine: Machine, word: str) -> str:
    path = machine.write("check", CHECK.format(word, word), 0o755)
    return f'check = ["{path}", "{{}}"]'


def test_check_sees_the_new_file_before_it_is_there(machine: Machine) -> None:
    say(machine, "etc/a", check_for(machine, "new"))

    machine.run("expand-template /etc/a")

    assert machine.read("etc/a") == "new\n"
    (line,) = machine.read("checked").splitlines()
    staged = line.split()[1]
    assert staged.endswith("/a")
    assert staged != str(machine.path("etc/a"))
    assert not os.path.exists(staged)


def test_check_that_refuses_says_why_of_the_file_and_nothing_is_written(
    machine: Machine,
) -> None:
    say(machine, "etc/a", check_for(machine, "mine"))
    machine.write("checked", "")
    before = machine.facts("etc/a")

    result = machine.run("expand-template /etc/a", check=False)

    assert result.status == 1
    assert result.errors == (f"expand-template: {machine.path('etc/a')}: has no mine\n")
    assert machine.facts("etc/a") == before


def test_one_refused_file_of_many_means_that_none_is_written(machine: Machine) -> None:
    machine.records(USERS, "accounts")
    machine.fragment("etc/a", "10", "{{ key }}\n")
    say(machine, "etc/a", EACH, check_for(machine, "ann"))
    machine.write("checked", "")

    result = machine.run("expand-template /etc/a", check=False)

    assert result.status == 1
    assert "/home/bob/.forward: has no ann" in result.errors
    assert not machine.path("home").exists() or not list(
        machine.path("home").rglob(".forward")
    )


@pytest.mark.parametrize("how", ["--stdout", "--diff"])
def test_what_only_shows_checks_nothing(machine: Machine, how: str) -> None:
    say(machine, "etc/a", check_for(machine, "mine"))

    machine.run(f"expand-template {how} /etc/a")

    assert not machine.path("checked").exists()


def test_file_that_is_right_is_not_checked(machine: Machine) -> None:
    say(machine, "etc/a", check_for(machine, "new"))
    machine.write("etc/a", "new\n", 0o640)

    machine.run("expand-template /etc/a")

    assert not machine.path("checked").exists()


def test_check_that_is_not_there_is_named(machine: Machine) -> None:
    say(machine, "etc/a", 'check = ["/no/such/check", "{}"]')

    errors = refused(machine, "/etc/a")

    assert errors == (
        "expand-template: /no/such/check: No such file or directory "
        "(the check of /etc/a)\n"
    )


# What is shown


@pytest.mark.parametrize(
    "line",
    [
        "--stdout /etc/a",
        "/etc/a --stdout",
        "--stdout --stdout etc/a",
        "--stdout -- /etc/a",
    ],
)
def test_text_is_shown_and_nothing_is_written(machine: Machine, line: str) -> None:
    before = files(machine)

    assert machine.run(f"expand-template {line}").output == "new\n"
    assert files(machine) == before


def test_difference_is_shown_and_nothing_is_written(machine: Machine) -> None:
    before = files(machine)

    shown = machine.run("expand-template --diff /etc/a").output

    assert shown == "--- /etc/a\n+++ /etc/a\n@@ -1 +1 @@\n-old\n+new\n"
    assert machine.run("expand-template /etc/new --diff").output == (
        "--- /etc/new\n+++ /etc/new\n@@ -0,0 +1 @@\n+new\n"
    )
    assert files(machine) == before


def test_secret_is_not_shown_in_a_difference(machine: Machine) -> None:
    machine.records("ldap=service|Password|hunter2\n")
    machine.fragment("etc/a", "10", "{{ ldap.Password }}\n")

    shown = machine.run("expand-template --diff /etc/a").output
    assert shown == "/etc/a: differs, and holds a secret: it is not shown\n"
    assert machine.run("expand-template --stdout /etc/a").output == "hunter2\n"


def test_sources_are_shown_beside_each_line(machine: Machine) -> None:
    before = files(machine)

    shown = machine.run("expand-template /etc/a --sources").output

    (line,) = shown.splitlines()
    assert line.startswith("new ")
    assert "10:1" in line
    assert "Word" in line
    assert files(machine) == before


# Other places


@pytest.mark.parametrize(
    "line",
    [
        "/etc/a --output_filename /srv/a",
        "--output_filename=srv/a /etc/a",
        "/etc/a --output-filename /srv/a",
        "--output-filename=/srv//a/ /etc/a",
    ],
)
def test_another_file_may_be_named(machine: Machine, line: str) -> None:
    machine.run(f"expand-template {line}")

    assert machine.read("srv/a") == "new\n"
    assert machine.read("etc/a") == "old\n"


@pytest.mark.parametrize("option", ["--expand_queue ", "--expand-queue="])
def test_fragments_of_a_further_directory_lie_above_all(
    machine: Machine, option: str
) -> None:
    machine.write("etc/more/etc/a/10", "more\n")
    machine.write("etc/more/etc/a/20", "{{ Word }}\n")

    shown = machine.run(f"expand-template --stdout {option}/etc/more /etc/a").output

    assert shown == "more\nnew\n"


def test_further_directory_that_is_not_there_is_named(machine: Machine) -> None:
    errors = refused(machine, "--expand_queue /etc/none /etc/a")

    place = machine.path("etc/none")
    assert errors == (
        f"expand-template: {place}: there is no such directory of templates\n"
    )


def test_many_files_cannot_be_one(machine: Machine) -> None:
    machine.records(USERS, "accounts")
    say(machine, "etc/a", EACH)

    assert refused(machine, "/etc/a --output_filename /srv/a") == (
        "expand-template: /etc/a: makes 2 files, which cannot all be /srv/a\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "/etc/../../etc/passwd",
        "/etc/a --output_filename ../outside",
        "/etc/a --output_filename /srv/../../outside",
        "/etc/a --expand_queue /etc/more/../../..",
        "/",
    ],
)
def test_path_that_would_leave_the_root_is_refused(machine: Machine, line: str) -> None:
    errors = refused(machine, line)

    assert "is no path below the root: name a file, without ..\n" in errors
    assert errors.count("\n") == 1


# What goes wrong


@pytest.mark.parametrize(
    "line",
    [
        *("", "--quux /etc/a", "/etc/a --quux", "/etc/a /etc/b", "--stdout"),
        *("/etc/a --output_filename", "--expand_queue= /etc/a", "-x /etc/a"),
        *("--stdout --diff /etc/a", "--sources /etc/a --stdout"),
    ],
)
def test_wrong_usage_is_255(machine: Machine, line: str) -> None:
    errors = refused(machine, line, status=255)

    assert errors.startswith("usage: expand-template [--root DIR] [--stdout]")


def test_help_is_shown(machine: Machine) -> None:
    assert machine.run("expand-template --help").output.startswith("usage: expand-")


def test_target_without_a_template_is_an_error(machine: Machine) -> None:
    assert refused(machine, "/etc/none") == (
        "expand-template: /etc/none: no template was found\n"
    )


def test_fault_of_a_fragment_is_named_in_one_line(machine: Machine) -> None:
    path = machine.fragment("etc/b", "20", "fine\n{% if %}\n")

    errors = refused(machine, "/etc/b")

    assert errors.startswith(f"expand-template: {path}:2: ")
    assert errors.count("\n") == 1


def test_fragment_that_leads_nowhere_is_named(machine: Machine) -> None:
    path = machine.path("etc/smeconf/templates-custom/etc/a/20")
    path.symlink_to("nowhere")

    assert refused(machine, "/etc/a") == (
        f"expand-template: {path}: is a symlink to nowhere, which is not there: "
        f"mend or remove it\n"
    )


@pytest.mark.parametrize("line", ["/etc/a", "--stdout /etc/a", "--diff /etc/a"])
def test_what_is_skipped_is_said(machine: Machine, line: str) -> None:
    path = machine.fragment("etc/a", "10~", "old\n")

    result: Result = machine.run(f"expand-template {line}")

    assert result.errors == (
        f"expand-template: {path}: left behind by an editor or a package, skipped\n"
    )


def test_directory_in_the_place_of_the_file_is_an_error(machine: Machine) -> None:
    machine.path("etc/new").mkdir()

    assert refused(machine, "/etc/new") == (
        "expand-template: /etc/new: Is a directory\n"
    )


def test_file_that_cannot_be_written_is_named(machine: Machine) -> None:
    say(machine, "etc/a", 'output = "etc/b/below"')

    assert refused(machine, "/etc/a") == (
        "expand-template: /etc/b/below: Not a directory\n"
    )


def test_secret_is_not_shown_in_an_error(machine: Machine) -> None:
    machine.records("ldap=service|Password|hunter2\n")
    machine.fragment("etc/a", "10", "{{ ldap.Password }}\n")
    path = say(machine, "etc/a", 'filter = "line + 1"')

    errors = refused(machine, "/etc/a")

    assert errors.startswith(f"expand-template: {path}: filter: ")
    assert errors.endswith("in the line '(secret)'\n")


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("/dev/full", "expand-template: standard output: No space left on device\n"),
        ("closed pipe", ""),
    ],
)
def test_output_that_cannot_be_written_is_an_error(
    machine: Machine, device: str, reason: str
) -> None:
    if device == "/dev/full":
        output = os.open(device, os.O_WRONLY)
    else:
        end, output = os.pipe()
        os.close(end)
    try:
        done = subprocess.run(
            [BIN / "expand-template", "--stdout", "/etc/a"],
            stdout=output,
            stderr=subprocess.PIPE,
            env=machine.environment,
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(output)

    assert (done.returncode, done.stderr.decode()) == (1, reason)
