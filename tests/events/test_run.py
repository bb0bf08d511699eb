"""Events: all of a change, or none of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from smeconf.events import EventError, Report, Run, UnknownEvent, find_event
from smeconf.paths import Paths
from smeconf.system import System
from tests.support.config import SECONDS, FakeDaemon, FileFacts, Machine

TARGETS = ("etc/a", "etc/b", "etc/new", "etc/same", "etc/z")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine where ``try`` would change four files, leave one, and make one."""
    machine = Machine(tmp_path)
    machine.records("Word=old\nqpsmtpd=service|status|enabled\n")
    for target in TARGETS:
        machine.fragment(target, "template-begin", "")
        machine.fragment(target, "10", "{{ Word }}\n")
    machine.fragment("etc/same", "10", "new\n")
    machine.event("try", TARGETS)
    machine.signal("try")
    for target in ("etc/a", "etc/b", "etc/z"):
        machine.path(target).chmod(0o640)
    machine.path("etc/new").unlink()
    machine.records("Word=new\nqpsmtpd=service|status|enabled\n")
    return machine


def facts(machine: Machine) -> dict[str, FileFacts | None]:
    return {target: machine.facts(target) for target in TARGETS}


def contents(facts: FileFacts | None) -> tuple[bytes, int, tuple[int, int]] | None:
    return None if facts is None else (facts.data, facts.mode, facts.owner)


# What an event is


def test_site_adds_to_a_shipped_event(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.event(
        "email-update",
        ["etc/mine"],
        {"S10qpsmtpd-prepare": "exit 0", "S20mine": "exit 0", "notes": ""},
        {"qpsmtpd": "sigusr1"},
    )

    event = find_event("email-update", machine.paths)

    assert "etc/mine" in event.targets
    assert "var/service/qpsmtpd/config/dnsbl_zones" in event.targets
    names = [os.path.basename(path) for path in event.steps]
    assert names == sorted(names)
    assert names.count("S10qpsmtpd-prepare") == 1
    assert "S20mine" in names
    assert "notes" not in names
    own = machine.path("etc/smeconf/events/email-update/S10qpsmtpd-prepare")
    assert str(own) in event.steps.values()
    assert event.services["qpsmtpd"] == ("sigusr1",)


def test_action_of_a_service_may_be_the_target_of_a_symlink(machine: Machine) -> None:
    folder = machine.path("etc/smeconf/events/try/services2adjust")
    folder.mkdir()
    (folder / "qpsmtpd").symlink_to("reload")

    assert find_event("try", machine.paths).services == {"qpsmtpd": ("reload",)}


@pytest.mark.parametrize("name", ["none", "", "actions", "../events", ".", "try/x"])
def test_event_without_a_directory_is_unknown(machine: Machine, name: str) -> None:
    machine.path("etc/smeconf/events/actions").mkdir()

    with pytest.raises(UnknownEvent):
        find_event(name, machine.paths)


@pytest.mark.parametrize("words", [["none"], [], ["--quux"]])
def test_unknown_event_and_wrong_usage_are_255(
    machine: Machine, words: list[str]
) -> None:
    result = machine.run("signal-event", *words, check=False)

    assert (result.status, result.output) == (255, "")
    assert result.errors.startswith(
        "signal-event: none: there is no such event\n" if words == ["none"] else "usage"
    )


# All


def test_event_installs_what_changed_and_leaves_what_did_not(machine: Machine) -> None:
    before = facts(machine)

    result = machine.run("signal-event try")

    after = facts(machine)
    assert (result.output, result.errors) == ("", "")
    for target in ("etc/a", "etc/b", "etc/new", "etc/z"):
        assert contents(after[target]) == (
            b"new\n",
            0o644,
            (os.geteuid(), os.getegid()),
        )
    assert after["etc/same"] == before["etc/same"]
    assert sorted(os.listdir(machine.path("etc"))) == [
        *("a", "b", "new", "same", "smeconf", "z")
    ]


def test_second_run_touches_nothing(machine: Machine) -> None:
    machine.signal("try")
    before = facts(machine)

    event = find_event("try", machine.paths)
    changes = Run(event, [], machine.paths, System(), Report()).apply()

    assert changes == []
    assert facts(machine) == before


def test_unchanged_target_keeps_inode_and_time_while_its_mode_is_repaired(
    machine: Machine,
) -> None:
    machine.path("etc/same").chmod(0o666)
    before = machine.facts("etc/same")

    machine.signal("try")

    after = machine.facts("etc/same")
    assert before
    assert after
    assert after.mode == 0o644
    assert (after.inode, after.mtime) == (before.inode, before.mtime)


def test_directory_of_a_new_target_is_made(machine: Machine) -> None:
    machine.fragment("srv/deep/below/file", "10", "{{ Word }}\n")
    machine.event("deep", ["srv/deep/below/file"])

    machine.signal("deep")

    assert machine.read("srv/deep/below/file").endswith("new\n")


def test_metadata_gives_mode(machine: Machine) -> None:
    machine.fragment("etc/a", "metadata.toml", 'mode = "0600"')

    machine.signal("try")

    after = machine.facts("etc/a")
    assert after
    assert after.mode == 0o600


def test_template_sees_the_name_of_its_event(machine: Machine) -> None:
    machine.fragment("etc/a", "10", "{{ EVENT }}\n")

    machine.signal("try")

    assert machine.read("etc/a") == "try\n"


def test_actions_run_in_byte_order_behind_the_files_with_their_arguments(
    machine: Machine,
) -> None:
    log = machine.path("log")
    text = '$(cat "$SMECONF_ROOT/etc/a")'
    line = f'echo "${{0##*/}} $EVENT $SMECONF_ROOT $# $1 $2 $3 {text}"'
    machine.event("try", actions={n: f"{line} >>{log}" for n in ("S5", "S10b", "S10B")})
    machine.event(
        "try", actions={"S99": "exec config getprop qpsmtpd status >/dev/null"}
    )
    machine.write("etc/smeconf/events/try/S50", "not executable", 0o644)

    result = machine.run("signal-event", "try", "two words", "-x")

    expected = f"try {machine.root} 3 try two words -x new"
    assert log.read_text().splitlines() == [
        f"{name} {expected}" for name in ("S10B", "S10b", "S5")
    ]
    skipped = machine.path("etc/smeconf/events/try/S50")
    assert result.errors == f"{skipped}: is not executable, skipped\n"


def test_program_that_an_action_leaves_behind_does_not_hold_the_event(
    machine: Machine,
) -> None:
    pid = machine.path("pid")
    machine.event("try", actions={"S50": f"sleep 60 & echo $! >{pid}"})

    machine.run("signal-event", "try")  # or its time would be up

    left_behind = int(pid.read_text())
    os.kill(left_behind, signal.SIGKILL)


def test_runs_at_once_wait_for_each_other(machine: Machine) -> None:
    """An action that found another one at work would say so."""
    busy = machine.path("busy")
    machine.event("try", actions={"S50": f"mkdir {busy} && sleep 0.1 && rmdir {busy}"})

    runs = [machine.start("signal-event", "try") for _ in range(3)]
    said = [run.communicate(timeout=SECONDS)[0] for run in runs]

    assert [run.returncode for run in runs] == [0, 0, 0], said
    assert machine.read("etc/z") == "new\n"


# Or none


def break_fragment(machine: Machine) -> str:
    path = machine.fragment("etc/b", "20", "fine\n{% if %}\n")
    return f"{path}:2: "


def use_undefined_property(machine: Machine) -> str:
    path = machine.fragment("etc/z", "20", "{{ qpsmtpd.Sttus }}\n")
    return f"{path}:1: qpsmtpd{{Sttus}} does not exist; did you mean status?"


def lose_template(machine: Machine) -> str:
    machine.event("try", ["etc/none"])
    return "/etc/none: no template was found"


def break_metadata(machine: Machine) -> str:
    path = machine.fragment("etc/b", "metadata.toml", "mode = 640")
    return f"{path}: mode is octal in quotes"


def fail_check(machine: Machine) -> str:
    check = machine.write(
        "check", '#!/bin/sh\ncat $1/b $1/new\necho "$1/b:1: bad"; exit 3\n', 0o755
    )
    machine.fragment("etc", "metadata.toml", f'check_directory = ["{check}", "{{}}"]')
    return f"new\nnew\n{machine.path('etc')}/b:1: bad"


def lose_check(machine: Machine) -> str:
    machine.fragment("etc", "metadata.toml", 'check_directory = ["/no/such", "{}"]')
    return "/no/such: No such file or directory"


def put_directory_in_the_way(machine: Machine) -> str:
    machine.fragment("etc/m", "10", "x\n")
    machine.event("try", ["etc/m"])
    machine.path("etc/m").mkdir()
    return "/etc/m: Is a directory"


def put_file_in_the_way(machine: Machine) -> str:
    machine.fragment("etc/m/deep", "10", "x\n")
    machine.event("try", ["etc/m/deep"])
    machine.write("etc/m", "a file where a directory should be")
    return "/etc/m/deep: Not a directory"


def make_unwritable(machine: Machine) -> str:
    machine.fragment("etc/p/new", "10", "x\n")
    machine.event("try", ["etc/p/new"])
    machine.path("etc/p").symlink_to("/proc")
    return "/etc/p/new: cannot be written: No such file or directory"


def fail_action(machine: Machine) -> str:
    machine.event("try", actions={"S50": "echo what went wrong; exit 3"})
    machine.event("try", actions={"S60": f"touch {machine.path('later')}"})
    return f"{machine.path('etc/smeconf/events/try/S50')}: what went wrong"


def fail_action_silently(machine: Machine) -> str:
    machine.event("try", actions={"S50": "exit 3"})
    return f"{machine.path('etc/smeconf/events/try/S50')}: exit status 3"


def name_missing_interpreter(machine: Machine) -> str:
    path = machine.write("etc/smeconf/events/try/S50", "#!/no/such\n", 0o755)
    return f"{path}: No such file or directory"


def name_service_without_record(machine: Machine) -> str:
    machine.event("try", services={"httpd": "restart"})
    return "httpd: configuration has no such service"


def name_action_that_nobody_knows(machine: Machine) -> str:
    machine.event("try", services={"qpsmtpd": "explode"})
    return "qpsmtpd: no action explode"


BEFORE_INSTALLING = [
    break_fragment,
    use_undefined_property,
    lose_template,
    break_metadata,
    fail_check,
    lose_check,
    put_directory_in_the_way,
    put_file_in_the_way,
]
BEHIND_IT = [
    make_unwritable,
    fail_action,
    fail_action_silently,
    name_missing_interpreter,
    name_service_without_record,
    name_action_that_nobody_knows,
]


@pytest.mark.parametrize("harm", BEFORE_INSTALLING)
def test_fault_that_is_found_before_installing_touches_no_file(
    machine: Machine, harm: Callable[[Machine], str]
) -> None:
    reason = harm(machine)
    before = facts(machine)

    result = machine.run("signal-event try", check=False)

    assert facts(machine) == before
    assert_failed(result.status, result.errors, reason)
    assert os.listdir(machine.path("var/lib/smeconf/journal")) == []


@pytest.mark.parametrize("harm", BEHIND_IT)
def test_fault_that_is_found_later_puts_every_file_back(
    machine: Machine, harm: Callable[[Machine], str]
) -> None:
    """And removes those that were new."""
    reason = harm(machine)
    before = facts(machine)

    result = machine.run("signal-event try", check=False)

    after = facts(machine)
    for target in TARGETS:
        assert contents(after[target]) == contents(before[target]), target
    assert after["etc/same"] == before["etc/same"]
    assert not machine.path("etc/new").exists()
    assert not machine.path("later").exists()
    assert_failed(result.status, result.errors, reason)


def assert_failed(status: int, errors: str, reason: str) -> None:
    """The reason comes first, then that nothing was changed."""
    assert status == 1
    said = errors.replace("signal-event: ", "")
    assert said.startswith(reason), errors
    assert said.endswith("signal-event try: failed, nothing was changed\n")
    assert "Traceback" not in errors


def test_all_faults_of_templates_are_told_at_once(machine: Machine) -> None:
    break_fragment(machine)
    use_undefined_property(machine)

    errors = machine.run("signal-event try", check=False).errors

    assert "/etc/b/20:2: " in errors
    assert "/etc/z/20:1: " in errors


def test_mode_that_was_repaired_is_put_back_on_failure(machine: Machine) -> None:
    machine.path("etc/same").chmod(0o600)
    before = machine.facts("etc/same")
    fail_action(machine)

    with pytest.raises(EventError):
        machine.signal("try")

    assert machine.facts("etc/same") == before


def test_check_that_accepts_sees_the_directory_as_it_will_be(machine: Machine) -> None:
    seen = machine.path("seen")
    check = machine.write(
        "check", f"#!/bin/sh\ncat $1/* >{seen} 2>/dev/null\nexit 0", 0o755
    )
    machine.write("etc/0kept", "kept\n")
    machine.fragment("etc", "metadata.toml", f'check_directory = ["{check}", "{{}}"]')

    machine.signal("try")

    assert seen.read_text() == "kept\n" + "new\n" * 5


# Services


def test_filter_that_runs_is_asked_to_reload(machine: Machine) -> None:
    machine.event("try", services={"qpsmtpd": "restart"})

    with FakeDaemon(machine) as daemon:
        said = machine.signal("try")

    assert daemon.requests == ["reload"]
    assert not any("qpsmtpd" in line for line in said)


def test_filter_that_refuses_fails_the_event(machine: Machine) -> None:
    machine.event("try", services={"qpsmtpd": "restart"})
    before = facts(machine)
    refusals = iter([{"ok": False, "error": "plugins:1: no plugin quux"}])

    with FakeDaemon(machine, lambda _: next(refusals, {})) as daemon:
        result = machine.run("signal-event try", check=False)

    after = facts(machine)
    assert {t: contents(f) for t, f in after.items()} == {
        t: contents(f) for t, f in before.items()
    }
    reason = "qpsmtpd keeps its old configuration: plugins:1: no plugin quux"
    assert_failed(result.status, result.errors, reason)
    # It is told of the files that are back.
    assert daemon.requests == ["reload", "reload"]


@pytest.mark.parametrize("answer", [b"", b"[]\n", b"null\n", b"\xff\n"])
def test_filter_that_talks_nonsense_fails_the_event(
    machine: Machine, answer: bytes
) -> None:
    machine.event("try", services={"qpsmtpd": "restart"})

    with (
        FakeDaemon(machine, lambda _: answer),
        pytest.raises(EventError, match=r"^qpsmtpd did not answer reload: "),
    ):
        machine.signal("try")

    assert machine.read("etc/a") == "old\n"


def test_event_installs_for_a_filter_that_is_stopped_and_says_so(
    machine: Machine,
) -> None:
    machine.event("try", services={"qpsmtpd": "restart"})

    result = machine.run("signal-event try")

    assert result.errors == (
        "qpsmtpd is not running: what was installed waits for it\n"
    )
    assert machine.read("etc/a") == "new\n"


def test_filter_that_is_disabled_is_stopped(machine: Machine) -> None:
    machine.event("try", services={"qpsmtpd": "restart"})
    machine.records("Word=new\nqpsmtpd=service|status|disabled\n")

    with FakeDaemon(machine) as daemon:
        result = machine.run("signal-event try")

    assert daemon.requests == ["stop"]
    assert result.errors == "qpsmtpd is disabled: it stops\n"
    assert machine.read("etc/a") == "new\n"


# The shipped event


def test_email_update_makes_what_the_filter_reads(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.run("config setprop qpsmtpd DNSBL enabled RBLList 'a.test:No, b.test'")

    result = machine.run("signal-event email-update")

    config = "var/service/qpsmtpd/config"
    zones = machine.read(f"{config}/dnsbl_zones").splitlines()
    assert [line for line in zones if not line.startswith("#")] == [
        *("a.test:No", "b.test")
    ]
    assert result.status == 0
    for target in find_event("email-update", Paths(str(tmp_path))).targets:
        assert machine.path(target).is_file()
