"""Events: all of a change, or none of it."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from smeconf.events import EventError, Report, Run, find_event
from smeconf.paths import Paths
from smeconf.system import RUN_SECONDS, System
from tests.events.test_check import has_ended
from tests.support.config import FakeDaemon, FileFacts, Machine

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
    name_service_without_record,
    name_action_that_nobody_knows,
]
BEHIND_IT = [
    make_unwritable,
    fail_action,
    fail_action_silently,
    name_missing_interpreter,
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


# Actions


def test_action_has_its_event_and_finds_the_commands(machine: Machine) -> None:
    seen = machine.path("seen")
    words = '"$EVENT" "$SMECONF_ROOT" "$PWD" "$FROM_CALLER"'
    script = f'printf "%s\\n" {words} $(config getprop qpsmtpd status) >{seen}'
    machine.event("try", actions={"S50": script})

    machine.run("signal-event", "try", env={"FROM_CALLER": "kept", "PATH": "/usr/bin"})

    assert seen.read_text().splitlines() == [
        *("try", str(machine.root), os.getcwd(), "kept", "enabled")
    ]


def test_action_reads_nothing_of_what_its_caller_is_given(machine: Machine) -> None:
    seen = machine.path("seen")
    machine.event("try", actions={"S50": f"cat >{seen}"})

    machine.run("signal-event", "try", stdin="mine")

    assert seen.read_text() == ""


def test_action_may_be_of_any_language(machine: Machine) -> None:
    script = "#!/usr/bin/env python3\nimport sys\nopen(sys.argv[2], 'w').write('x')\n"
    machine.write("etc/smeconf/events/try/S50", script, 0o755)

    machine.signal("try", str(machine.path("made")))

    assert machine.read("made") == "x"


def test_output_of_an_action_is_in_the_log_and_not_on_the_terminal(
    machine: Machine,
) -> None:
    machine.event("try", actions={"S50": "echo hello; echo world >&2"})

    result = machine.run("signal-event", "try")

    assert (result.output, result.errors) == ("", "")
    log = machine.read("var/log/smeconf/events.log")
    assert re.findall(r"\]: (hello|world)\n", log) == ["hello", "world"]


def test_action_that_takes_too_long_is_killed_with_all_that_it_started(
    machine: Machine,
) -> None:
    class Impatient(System):
        def run(
            self,
            words: Sequence[str],
            environment: Mapping[str, str],
            seconds: float = 0.5,
        ) -> subprocess.CompletedProcess[str]:
            return super().run(words, environment, seconds)

    pid = machine.path("pid")
    machine.event("try", actions={"S50": f"sleep 60 & echo $! >{pid}; wait"})
    before = facts(machine)
    event = find_event("try", machine.paths)

    with pytest.raises(EventError, match="S50: was killed after 0 s"):
        Run(event, [], machine.paths, Impatient(), Report()).apply()

    assert has_ended(int(pid.read_text()))
    assert {t: contents(f) for t, f in facts(machine).items()} == {
        t: contents(f) for t, f in before.items()
    }


def test_every_program_has_a_time_limit() -> None:
    assert 0 < RUN_SECONDS < 3600
    limit = inspect.signature(System.run).parameters["seconds"]
    assert limit.default == RUN_SECONDS


# What was edited by hand


def test_hand_edit_is_kept_beside_and_said(machine: Machine) -> None:
    machine.write("etc/a", "by hand\n")

    result = machine.run("signal-event try")

    assert result.errors == "/etc/a was edited by hand: kept beside, as a.edited\n"
    assert machine.read("etc/a") == "new\n"
    assert machine.read("etc/a.edited") == "by hand\n"


def test_hand_edit_keeps_its_owner_mode_and_time(machine: Machine) -> None:
    machine.write("etc/a", "by hand\n", 0o600)
    before = machine.facts("etc/a")

    machine.signal("try")

    assert machine.facts("etc/a.edited") == before


def test_second_hand_edit_is_kept_beside_the_first(machine: Machine) -> None:
    for number, text in enumerate(("one\n", "two\n", "one\n", "two\n", "three\n")):
        machine.records(f"Word=w{number}\nqpsmtpd=service|status|enabled\n")
        machine.write("etc/a", text)
        machine.signal("try")

    kept = {p.name: p.read_text() for p in machine.path("etc").glob("a.edited*")}
    assert kept == {
        "a.edited": "one\n",
        "a.edited.2": "two\n",
        "a.edited.3": "three\n",
    }


def test_file_that_was_never_ours_is_kept(machine: Machine) -> None:
    machine.fragment("etc/mine", "10", "{{ Word }}\n")
    machine.event("try", ["etc/mine"])
    machine.write("etc/mine", "since years\n")

    assert machine.signal("try") == [
        "/etc/mine was edited by hand: kept beside, as mine.edited"
    ]
    assert machine.read("etc/mine.edited") == "since years\n"


def test_file_that_already_holds_what_is_written_is_not_kept(machine: Machine) -> None:
    machine.write("etc/new", "new\n")

    assert machine.signal("try") == []
    assert not machine.path("etc/new.edited").exists()


def test_hand_edit_of_a_file_that_is_removed_is_kept(machine: Machine) -> None:
    machine.fragment("etc/a", "metadata.toml", "delete = true")
    machine.write("etc/a", "by hand\n")

    machine.signal("try")

    assert not machine.path("etc/a").exists()
    assert machine.read("etc/a.edited") == "by hand\n"


def test_hand_edit_is_where_it_was_when_the_event_fails(machine: Machine) -> None:
    machine.write("etc/a", "by hand\n")
    before = machine.facts("etc/a")
    fail_action(machine)

    with pytest.raises(EventError):
        machine.signal("try")

    assert machine.facts("etc/a") == before
    assert not machine.path("etc/a.edited").exists()


def test_plan_and_doctor_show_a_hand_edit(machine: Machine) -> None:
    machine.signal("try")
    machine.write("etc/a", "by hand\n")

    plan = machine.run("signal-event try --plan", check=False)
    doctor = machine.run("smeconf doctor", check=False)

    assert plan.output.startswith(
        "/etc/a: was edited by hand, which is kept beside\n--- /etc/a\n"
    )
    assert "note   /etc/a was edited by hand: the next event keeps " in doctor.output
    assert machine.read("etc/a") == "by hand\n"


def test_expand_template_keeps_a_hand_edit_too(machine: Machine) -> None:
    machine.write("etc/a", "by hand\n")

    result = machine.run("expand-template /etc/a")

    assert result.errors == "/etc/a was edited by hand: kept beside, as a.edited\n"
    assert machine.read("etc/a") == "new\n"
    assert machine.read("etc/a.edited") == "by hand\n"
    assert machine.signal("try") == []  # what it wrote is ours


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


def test_filter_that_does_not_greet_fails_the_event(machine: Machine) -> None:
    machine.event("try", services={"qpsmtpd": "restart"})
    greetings = (b"SSH-2.0-x\r\n", b"220 mx.test ESMTP\r\n")

    with FakeDaemon(machine, greetings=greetings) as daemon:
        result = machine.run("signal-event try", check=False)

    reason = f"qpsmtpd does not greet on 127.0.0.1@{daemon.port}: it said b'SSH-2.0-x"
    assert_failed(result.status, result.errors, reason)
    assert machine.read("etc/a") == "old\n"
    assert daemon.requests == ["reload", "reload"]


def test_filter_that_does_not_start_fails_the_event(machine: Machine) -> None:
    machine.event("try", services={"qpsmtpd": "start"})

    result = machine.run("signal-event try", check=False)

    config = machine.path("var/service/qpsmtpd/config")
    assert result.status == 1
    assert result.errors.startswith(
        f"signal-event: qpsmtpd does not start: {config}: no such directory\n"
    )
    assert machine.read("etc/a") == "old\n"
    assert not machine.path("etc/new").exists()


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
