"""What every plugin is made of: settings, policy, log words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from smeconf.dns import Resolver
from smeconf.smtpd.config import ConfigError, Directory, Line, whole_number
from smeconf.smtpd.hooks import DECLINED, Answer, Verdict
from smeconf.smtpd.log import Log
from smeconf.smtpd.plugin import (
    Context,
    Plugin,
    Policy,
    RejectType,
    argument,
    lines,
    option,
    read_settings,
)
from smeconf.smtpd.state import Connection


def octal(word: str) -> int:
    return int(word, 8)


class Sample(Plugin):
    @dataclass(frozen=True)
    class Settings:
        place: str = argument(0, "")
        count: int = argument(1, 5)
        reject: Policy = option(Policy.REJECT)
        reject_type: RejectType = option(RejectType.PERM)
        mode: int = option(0o600, octal)
        numbers: tuple[int, ...] = lines("numbers", whole_number)


def read(tmp_path: Path, words: str, numbers: str = "") -> Any:
    (tmp_path / "numbers").write_text(numbers)
    line = Line(f"sample {words}", "peers/0", 7)
    return read_settings(Sample, words.split(), line, Directory(str(tmp_path)))


def test_settings_without_a_word_have_their_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Sample.Settings()


def test_options_are_read_by_the_type_of_their_default(tmp_path: Path) -> None:
    settings = read(
        tmp_path, "reject naughty reject_type temp mode 644 place here count 9", "1\n2"
    )

    assert settings == Sample.Settings(
        place="here",
        count=9,
        reject=Policy.NAUGHTY,
        reject_type=RejectType.TEMP,
        mode=0o644,
        numbers=(1, 2),
    )


def test_arguments_stand_by_their_place_in_front_of_options(tmp_path: Path) -> None:
    assert read(tmp_path, "here 9 reject 0") == Sample.Settings(
        place="here", count=9, reject=Policy.TOLERATE
    )
    assert read(tmp_path, "here reject 0").count == 5


@pytest.mark.parametrize(
    ("word", "type"),
    [
        ("perm", RejectType.PERM),
        ("hard", RejectType.PERM),
        ("soft", RejectType.TEMP),
        ("disconnect", RejectType.DISCONNECT),
        ("temp_disconnect", RejectType.TEMP_DISCONNECT),
    ],
)
def test_types_of_refusal_have_their_words(
    tmp_path: Path, word: str, type: RejectType
) -> None:
    assert read(tmp_path, f"reject_type {word}").reject_type is type


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("here 9 rejct 0", "no option rejct; there are: place, count, reject, "),
        ("here 9 reject", "option reject has no value"),
        ("here 9 11", "option 11 has no value"),
        ("here nine", "count: 'nine' is no whole number"),
        ("here -1", "count: '-1' is no whole number"),
        ("reject yes", "reject: must be 0, 1 or naughty, not 'yes'"),
        ("reject_type hardest", "reject_type: must be one of perm, "),
        ("mode 999", "mode: invalid literal"),
        ("numbers 5", "no option numbers"),
    ],
)
def test_wrong_word_is_named_with_file_and_line(
    tmp_path: Path, words: str, why: str
) -> None:
    if words.startswith("numbers"):
        words = "here 9 " + words
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, words)

    assert str(caught.value).startswith(f"peers/0:7: {why}")


def test_wrong_line_of_a_list_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/numbers:2: 'x' is no"):
        read(tmp_path, "", "1\nx")


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = read(tmp_path, "")

    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.count = 6


def test_misspelt_hook_fails_when_the_class_is_defined() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.hook_rctp: there is no such hook"):

        class Wrong(Plugin):
            def hook_rctp(self) -> None: ...


def rejecting(reject: Policy, type: RejectType = RejectType.PERM) -> Sample:
    context = Context("mx", "/", "/", Resolver([("127.0.0.1", 9)]), Log(7))
    return Sample("sample", Sample.Settings(reject=reject, reject_type=type), context)


def test_policy_reject_refuses_as_the_type_says(
    capfd: pytest.CaptureFixture[str],
) -> None:
    connection = Connection("1.1", "192.0.2.1", 25)

    answer = rejecting(Policy.REJECT, RejectType.TEMP).reject(connection, "bad")

    assert answer == Answer(Verdict.DENYSOFT, "bad")
    assert connection.grievances == []
    assert capfd.readouterr().err == "1.1 (connect) sample: fail, bad\n"


def test_policy_0_only_logs(capfd: pytest.CaptureFixture[str]) -> None:
    connection = Connection("1.1", "192.0.2.1", 25)

    assert rejecting(Policy.TOLERATE).reject(connection, "bad") is DECLINED
    assert connection.grievances == []
    assert capfd.readouterr().err == "1.1 (connect) sample: fail, tolerated, bad\n"


def test_policy_naughty_puts_the_refusal_off(
    capfd: pytest.CaptureFixture[str],
) -> None:
    connection = Connection("1.1", "192.0.2.1", 25)
    plugin = rejecting(Policy.NAUGHTY, RejectType.DISCONNECT)

    assert plugin.reject(connection, "bad") is DECLINED
    (grievance,) = connection.grievances
    assert (grievance.plugin, grievance.text) == ("sample", "bad")
    assert grievance.reject_type is RejectType.DISCONNECT
    assert capfd.readouterr().err == "1.1 (connect) sample: fail, naughty, bad\n"
