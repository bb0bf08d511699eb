"""``smeconf user``: who may log in."""

from __future__ import annotations

import os
import pwd
import select
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smeconf.cli.user import user
from smeconf.paths import Paths
from smeconf.smtpd.passwords import PASSWORD_FILE, PasswordFile, verify

COMMAND = """
import sys
from smeconf.cli.user import user
from smeconf.paths import Paths
user(sys.argv[2:], obj=Paths(sys.argv[1]), prog_name="user")
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``smeconf user`` with these words on a root of its own."""

    def run(*words: str, stdin: str | bytes = "") -> Result:
        result = CliRunner().invoke(user, words, stdin, obj=Paths(str(tmp_path)))
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def file(tmp_path: Path) -> PasswordFile:
    return PasswordFile(str(tmp_path / PASSWORD_FILE))


def has_password(file: PasswordFile, name: str, password: str) -> bool:
    stored = file.find(name)
    return stored is not None and verify(password, stored)


def test_name_that_is_added_has_the_password(run: Run, file: PasswordFile) -> None:
    result = run("add", "ann", "--stdin", stdin="open sesame\n")

    assert (result.exit_code, result.output) == (0, "ann may log in\n")
    assert has_password(file, "ann", "open sesame")


@pytest.mark.parametrize(
    ("line", "password"),
    [
        ("open sesame", "open sesame"),
        ("open sesame\r\n", "open sesame"),
        (" open sesame \nmore\n", " open sesame "),
        ("öffne dich: $x\\n\n", "öffne dich: $x\\n"),
        ("x" * 1024 + "\n", "x" * 1024),
    ],
)
def test_password_is_the_first_line_and_nothing_of_it_is_lost(
    run: Run, file: PasswordFile, line: str, password: str
) -> None:
    assert run("add", "ann", "--stdin", stdin=line).exit_code == 0
    assert has_password(file, "ann", password)


def test_password_is_replaced(run: Run, file: PasswordFile) -> None:
    run("add", "ann", "--stdin", stdin="open sesame\n")

    result = run("passwd", "ann", "--stdin", stdin="close sesame\n")

    assert (result.exit_code, result.output) == (0, "ann has another password\n")
    assert has_password(file, "ann", "close sesame")
    assert not has_password(file, "ann", "open sesame")


def test_password_of_a_broken_line_can_be_set_anew(
    run: Run, file: PasswordFile
) -> None:
    os.makedirs(os.path.dirname(file.path))
    Path(file.path).write_text("ann:$6$salt$hash\n")
    assert run("add", "ann", "--stdin", stdin="open sesame\n").exit_code == 1

    assert run("passwd", "ann", "--stdin", stdin="open sesame\n").exit_code == 0

    assert has_password(file, "ann", "open sesame")


def test_name_that_is_deleted_is_gone(run: Run, file: PasswordFile) -> None:
    run("add", "ann", "--stdin", stdin="open sesame\n")
    run("add", "bob", "--stdin", stdin="open sesame\n")

    result = run("delete", "ann")

    assert (result.exit_code, result.output) == (0, "ann may not log in any more\n")
    assert file.names() == ["bob"]


def test_list_names_who_may_log_in(run: Run, file: PasswordFile) -> None:
    assert (run("list").exit_code, run("list").output) == (0, "")
    for name in ("bob", "ann"):
        run("add", name, "--stdin", stdin="open sesame\n")

    assert run("list").output == "bob\nann\n"
    assert run("list").exit_code == 0

    with open(file.path, "a") as stream:
        stream.write("cem:$6$salt$hash\n")
    result = run("list")
    assert result.exit_code == 1
    assert result.output == (
        f"bob\nann\nsmeconf: {file.path}:3: is no scrypt hash: set the password anew\n"
    )


def test_check_tells_whether_that_is_the_password(run: Run) -> None:
    run("add", "ann", "--stdin", stdin="open sesame\n")

    right = run("check", "ann", "--stdin", stdin="open sesame\n")
    wrong = run("check", "ann", "--stdin", stdin="open\n")

    assert (right.exit_code, right.output) == (0, "that is the password of ann\n")
    assert wrong.exit_code == 1
    assert wrong.output == "Error: that is not the password of ann\n"


@pytest.mark.parametrize("verb", ["passwd", "delete", "check"])
def test_name_that_is_not_there_is_refused(run: Run, verb: str) -> None:
    words = [verb, "ann"] + ["--stdin"] * (verb != "delete")

    result = run(*words, stdin="open sesame\n")

    assert result.exit_code == 1
    assert result.output == (
        "Error: 'ann' is not there: smeconf user list shows who is\n"
    )


def test_name_that_is_there_keeps_its_password(run: Run, file: PasswordFile) -> None:
    run("add", "ann", "--stdin", stdin="open sesame\n")

    result = run("add", "ann", "--stdin", stdin="close sesame\n")

    assert result.exit_code == 1
    assert result.output == "Error: ann is there: smeconf user passwd ann\n"
    assert has_password(file, "ann", "open sesame")


@pytest.mark.parametrize(
    "name", ["a:b", "a b", "", "a\tb", "a\nb:x", "\x7f", "#ann", "x" * 257]
)
def test_name_that_cannot_be_one_is_refused(
    run: Run, file: PasswordFile, name: str
) -> None:
    result = run("add", "--stdin", "--", name, stdin="open sesame\n")

    assert result.exit_code == 1
    assert "cannot be a name: 1 to 256 bytes, without blanks" in result.output
    assert result.output.count("\n") == 1
    assert not os.path.exists(file.path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "the password is empty"),
        (b"\n", "the password is empty"),
        (b"1234567\n", "the password has fewer than 8 characters"),
        ("ä".encode() * 7 + b"\n", "the password has fewer than 8 characters"),
        (b"x" * 1025 + b"\n", "the password is longer than 1024 bytes"),
        (b"open\xffsesame\n", "the password is not in UTF-8"),
        (b"open\tsesame\n", "the password holds a control character"),
        (b"open\0sesame\n", "the password holds a control character"),
        (b"open\rsesame\n", "the password holds a control character"),
    ],
)
def test_password_that_will_not_do_is_refused(
    run: Run, file: PasswordFile, line: bytes, why: str
) -> None:
    result = run("add", "ann", "--stdin", stdin=line)

    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {why}")
    assert result.output.count("\n") == 1
    assert not os.path.exists(file.path)


def test_short_password_is_taken_by_force_and_an_empty_one_never(
    run: Run, file: PasswordFile
) -> None:
    assert run("add", "ann", "--stdin", "--force", stdin="1\n").exit_code == 0
    assert has_password(file, "ann", "1")
    assert run("passwd", "ann", "--stdin", "--force", stdin="\n").exit_code == 1
    assert has_password(file, "ann", "1")


def test_password_is_never_an_argument(run: Run) -> None:
    result = run("add", "ann", "open sesame")

    assert result.exit_code == 2
    assert "unexpected extra argument" in result.output


def test_input_that_is_no_terminal_has_to_be_meant(
    run: Run, file: PasswordFile
) -> None:
    result = run("add", "ann", stdin="open sesame\nopen sesame\n")

    assert result.exit_code == 1
    assert "--stdin reads the password from it" in result.output
    assert not os.path.exists(file.path)


def at_terminal(root: Path, words: list[str], *typed: str) -> tuple[int, str]:
    """Run the command on a terminal of its own, where somebody types a line at each
    prompt; return its status and all that the terminal showed."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(root), *words],
        preexec_fn=lambda: os.login_tty(theirs),
    )
    os.close(theirs)
    shown = b""
    lines = list(typed)
    answered = 0
    try:
        while select.select([ours], [], [], 30)[0]:
            try:
                piece = os.read(ours, 1024)
            except OSError:  # the other side is closed
                break
            shown += piece
            if lines and shown.count(b": ") > answered and shown.endswith(b": "):
                answered = shown.count(b": ")
                os.write(ours, lines.pop(0).encode() + b"\n")
        return process.wait(30), shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_terminal_asks_twice_and_shows_nothing(
    tmp_path: Path, file: PasswordFile
) -> None:
    status, shown = at_terminal(tmp_path, ["add", "ann"], "open sesame", "open sesame")

    assert status == 0
    assert "Repeat for confirmation" in shown
    assert "sesame" not in shown
    assert has_password(file, "ann", "open sesame")


def test_terminal_asks_again_where_the_two_differ(
    tmp_path: Path, file: PasswordFile
) -> None:
    typed = ("open sesame", "open sesane", "close sesame", "close sesame")

    status, shown = at_terminal(tmp_path, ["add", "ann"], *typed)

    assert status == 0
    assert "do not match" in shown
    assert has_password(file, "ann", "close sesame")


def test_terminal_asks_once_for_a_password_to_check(tmp_path: Path, run: Run) -> None:
    run("add", "ann", "--stdin", stdin="open sesame\n")

    status, shown = at_terminal(tmp_path, ["check", "ann"], "open sesame")

    assert status == 0
    assert "Repeat" not in shown


def test_file_is_for_root_and_the_filter(
    run: Run, file: PasswordFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry:
        pw_gid = os.getegid()

    def known(name: str) -> type[Entry]:
        if name != "qpsmtpd":
            raise KeyError(name)
        return Entry

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", known)

    run("add", "ann", "--stdin", stdin="open sesame\n")

    status = os.stat(file.path)
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert status.st_gid == os.getegid()


def test_file_is_for_its_owner_where_the_filter_has_no_user(
    run: Run, file: PasswordFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)

    run("add", "ann", "--stdin", stdin="open sesame\n")

    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600


def test_fault_of_the_file_is_one_line(run: Run, file: PasswordFile) -> None:
    os.makedirs(file.path)

    for words in (["list"], ["delete", "ann"], ["add", "ann", "--stdin"]):
        result = run(*words, stdin="open sesame\n")
        assert result.exit_code == 1
        assert result.output.startswith(f"Error: {file.path}: ")
        assert result.output.count("\n") == 1
