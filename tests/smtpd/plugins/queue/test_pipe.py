"""queue/pipe: a program takes the message, and no address ever becomes an option."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.smtp import MAIL, Conversation, load


def program(tmp_path: Path, script: str) -> Path:
    file = tmp_path / "program"
    file.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
    file.chmod(0o755)
    return file


def pipe(
    tmp_path: Path, script: str, words: str = "-- {recipients}", options: str = ""
) -> Conversation:
    command = f"{program(tmp_path, script)} {words}"
    plugins = f'rcpt_ok\nqueue/pipe "{command}" {options}'
    return Conversation(load(tmp_path, {"plugins": plugins}))


LATER = "452 4.7.1 The mail cannot be handed on, try again later"


def test_program_gets_envelope_and_message(tmp_path: Path) -> None:
    script = 'for word; do echo "<$word>"; done >words; cat >mail; env >env'
    words = "-i -f {sender} -- {recipients}"
    with pipe(tmp_path, script, words) as one:
        reply = one.deliver("b@here.test", '"a $(id) b"@here.test')

    assert reply == "250 2.0.0 Queued!"
    assert (tmp_path / "words").read_text().split("\n")[:-1] == [
        *("<-i>", "<-f>", "<a@far.test>", "<-->", "<b@here.test>"),
        '<"a $(id) b"@here.test>',
    ]
    text = (tmp_path / "mail").read_bytes()
    assert text.endswith(MAIL.replace("\r\n", "\n").encode())
    assert b"\r" not in text
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().split()}
    assert names <= {"PATH", "LC_ALL", "HOME", "PWD", "OLDPWD", "SHLVL", "_"}


def test_large_message_arrives_whole(tmp_path: Path) -> None:
    text = b"A: b\r\n\r\n" + b"0123456789\r\n" * 200_000
    with pipe(tmp_path, "cat >mail") as one:
        assert one.deliver(message=text).startswith("250 ")

    assert (tmp_path / "mail").read_bytes().endswith(text.replace(b"\r\n", b"\n"))


@pytest.mark.parametrize(
    ("end", "code"),
    [
        *(("exit 0", "250"), ("exit 75", "452"), ("exit 1", "452"), ("exit 64", "452")),
        *(("exit 65", "552"), ("exit 67", "552"), ("exit 69", "552")),
        *(("exit 70", "452"), ("exit 77", "552"), ("kill -9 $$", "452")),
    ],
)
def test_exit_status_is_the_answer(tmp_path: Path, end: str, code: str) -> None:
    with pipe(tmp_path, f"cat >/dev/null; {end}") as one:
        assert one.deliver()[:3] == code


def test_program_that_reads_nothing_and_is_content_took_nothing(tmp_path: Path) -> None:
    text = b"A: b\r\n\r\n" + b"0123456789\r\n" * 50_000
    with pipe(tmp_path, "exit 0") as one:
        assert one.deliver(message=text) == LATER


def test_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    started = time.monotonic()
    with pipe(tmp_path, "sleep 600 & echo $! >pid; wait", options="timeout 1") as one:
        assert one.deliver() == LATER

    assert time.monotonic() - started < 10
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_what_the_program_says_is_logged_up_to_a_limit(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "cat >/dev/null; echo no such box >&2; head -c 200000 /dev/zero; exit 67"
    with pipe(tmp_path, script) as one:
        assert one.deliver()[:3] == "552"

    log = capfd.readouterr().err
    assert "exit status 67: no such box" in log
    assert len(log) < 50_000


def test_program_that_goes_on_in_the_background_is_not_waited_for(
    tmp_path: Path,
) -> None:
    script = "cat >/dev/null; sleep 60 & echo $! >pid; exit 0"
    with pipe(tmp_path, script) as one:
        started = time.monotonic()
        assert one.deliver().startswith("250 ")

    os.kill(int((tmp_path / "pid").read_text()), 9)
    assert time.monotonic() - started < 10


def test_sender_that_looks_like_an_option_is_refused(tmp_path: Path) -> None:
    with pipe(tmp_path, "touch ran", "-f {sender} -- {recipients}") as one:
        one.envelope("-oQ/tmp@far.test")
        assert one.send()[:3] == "552"

    assert not (tmp_path / "ran").exists()


def test_program_that_is_missing_is_warned_of_and_puts_mail_off(tmp_path: Path) -> None:
    plugins = 'rcpt_ok\nqueue/pipe "/nowhere/sendmail -- {recipients}"'
    configuration = load(tmp_path, {"plugins": plugins})

    (warning,) = configuration.plugins()[1].warnings()
    assert "/nowhere/sendmail cannot be run" in warning
    with Conversation(configuration) as one:
        assert one.deliver() == LATER


@pytest.mark.parametrize(
    "command",
    [
        *("", "sendmail -- {recipients}", "/bin/cat", "/bin/cat {recipients}"),
        *("/bin/cat {recipients} --", "/bin/cat -f{sender} -- {recipients}"),
    ],
)
def test_command_that_is_not_safe_is_an_error(tmp_path: Path, command: str) -> None:
    with pytest.raises(Exception, match=r"plugins:1: "):
        load(tmp_path, {"plugins": f'queue/pipe "{command}"'})
