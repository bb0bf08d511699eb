"""SME's action words, and what they mean to our filter and to systemd."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.services import (
    ServiceError,
    check_words,
    parse_actions,
    read_actions,
)
from smeconf.services.words import Step, filter_steps, unit_calls

RELOADING = (
    *("restart", "reload", "adjust", "graceful", "sighup", "sigusr1", "sigusr2"),
    *("sigterm", "interrupt", "quit", "sigint", "sigquit", "reload-or-restart"),
    *("try-restart", "reload-or-try-restart"),
)
STARTING = ("start", "up", "once")
STOPPING = ("stop", "down", "exit")
BOOTING = ("enable", "disable", "svdisable", "enable -now", "enable --now")

SUPERVISED = (
    *("down", "stop", "up", "start", "restart", "sigterm", "adjust", "reload"),
    *("sighup", "sigusr1", "sigusr2", "once", "pause", "alarm", "interrupt"),
    *("quit", "kill", "exit"),
)
CONTROLLED = (
    *("start", "stop", "restart", "reload", "graceful", "adjust", "svdisable"),
    *("reload-or-restart", "try-restart", "reload-or-try-restart", "enable"),
    *("disable", "enable -now", "sighup", "sigwinch", "sigrtmin"),
)


# What an entry of services2adjust says


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ("restart\n", ("restart",)),
        ("restart", ("restart",)),
        ("\n# at night\n  sighup # again\n\nstart\n", ("sighup", "start")),
        ("enable   -now\n", ("enable -now",)),
        ("# nothing\n", ()),
        ("", ()),
    ],
)
def test_file_has_an_action_a_line(
    tmp_path: Path, text: str, actions: tuple[str, ...]
) -> None:
    path = tmp_path / "qpsmtpd"
    path.write_text(text)

    assert read_actions(str(path)) == actions
    assert parse_actions(text) == actions


@pytest.mark.parametrize("text", ["sigusr1", "enable -now"])
def test_text_of_a_symlink_is_the_action(tmp_path: Path, text: str) -> None:
    path = tmp_path / "qpsmtpd"
    path.symlink_to(text)

    assert read_actions(str(path)) == (text,)


def test_entry_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "qpsmtpd"

    with pytest.raises(ServiceError, match=rf"^{path}: No such file"):
        read_actions(str(path))
    path.write_bytes(b"\xff\n")
    with pytest.raises(ServiceError, match=rf"^{path}: is not a text of actions"):
        read_actions(str(path))
    path.unlink()
    path.mkdir()
    with pytest.raises(ServiceError, match=rf"^{path}: Is a directory"):
        read_actions(str(path))


# Our filter


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        *((word, (Step.RELOAD,)) for word in RELOADING),
        *((word, (Step.START,)) for word in STARTING),
        *((word, (Step.STOP,)) for word in STOPPING),
        *((word, (Step.KILL, Step.START)) for word in ("kill", "sigkill")),
        ("enable", (Step.ENABLE,)),
        ("enable -now", (Step.ENABLE, Step.START)),
        ("enable --now", (Step.ENABLE, Step.START)),
        ("disable", (Step.DISABLE,)),
        ("svdisable", (Step.DISABLE, Step.STOP)),
        ("", (Step.START,)),
        ("restart\nsighup", (Step.RELOAD,)),
        ("restart\nstart", (Step.START,)),
        ("start\nrestart", (Step.START,)),
        ("stop\nstart", (Step.STOP, Step.START)),
    ],
)
def test_words_become_steps_of_the_filter(words: str, steps: tuple[Step, ...]) -> None:
    assert filter_steps("qpsmtpd", parse_actions(words), True) == steps
    assert filter_steps("qpsmtpd", words, True) == steps


@pytest.mark.parametrize("word", [*RELOADING, *STARTING, *STOPPING, *BOOTING, "kill"])
def test_disabled_filter_is_only_stopped(word: str) -> None:
    assert filter_steps("qpsmtpd", [word], False) == (Step.STOP,)


@pytest.mark.parametrize("word", ["pause", "alarm", "sigstop", "sigwinch", "sigsegv"])
@pytest.mark.parametrize("is_enabled", [True, False])
def test_word_that_would_hurt_the_filter_is_refused(
    word: str, is_enabled: bool
) -> None:
    with pytest.raises(ServiceError, match=f"^qpsmtpd: action {word} would leave mail"):
        filter_steps("qpsmtpd", ["restart", word], is_enabled)


# Services of systemd


@pytest.mark.parametrize(
    ("words", "calls"),
    [
        ("start", ["start"]),
        ("up", ["start"]),
        ("once", ["start"]),
        ("stop", ["stop"]),
        ("down", ["stop"]),
        ("exit", ["stop"]),
        ("restart", ["restart"]),
        ("reload", ["reload"]),
        ("reload-or-restart", ["reload-or-restart"]),
        ("adjust", ["start", "reload-or-restart"]),
        ("graceful", ["start", "reload-or-restart"]),
        ("sighup", ["start", "reload-or-restart"]),
        ("sigusr1", ["start", "reload-or-restart"]),
        ("sigusr2", ["start", "reload-or-restart"]),
        ("sigterm", ["start", "restart"]),
        ("sigwinch", ["start", "kill --signal=SIGWINCH"]),
        ("sigkill", ["start", "kill --signal=SIGKILL"]),
        ("try-restart", ["start", "try-restart"]),
        ("reload-or-try-restart", ["start", "try-reload-or-restart"]),
        ("enable", ["start", "enable"]),
        ("enable -now", ["enable --now"]),
        ("enable --now", ["enable --now"]),
        ("disable", ["start", "disable"]),
        ("svdisable", ["disable --now"]),
        ("interrupt", ["start", "kill --signal=SIGINT"]),
        ("quit", ["start", "kill --signal=SIGQUIT"]),
        ("kill", ["start", "kill --signal=SIGKILL"]),
        ("alarm", ["start", "kill --signal=SIGALRM"]),
        ("pause", ["start", "kill --signal=SIGSTOP"]),
        ("", ["start"]),
        ("sighup\nstop", ["reload-or-restart", "stop"]),
        ("sighup\nenable", ["start", "reload-or-restart", "enable"]),
    ],
)
def test_words_become_calls_of_systemctl(words: str, calls: list[str]) -> None:
    found = unit_calls("dovecot", parse_actions(words), True)

    assert [" ".join(call) for call in found] == calls


@pytest.mark.parametrize("word", ["restart", "start", "sighup", "enable -now", "kill"])
def test_disabled_service_is_only_stopped(word: str) -> None:
    assert unit_calls("dovecot", [word], False) == (("stop",),)


# Words that are none


@pytest.mark.parametrize("word", [*SUPERVISED, *CONTROLLED])
def test_every_word_of_sme_is_known(word: str) -> None:
    check_words("dovecot", [word])


@pytest.mark.parametrize("name", ["qpsmtpd", "dovecot"])
@pytest.mark.parametrize(
    ("word", "rest"),
    [
        ("explode", ""),
        ("restrat", "; did you mean restart?"),
        ("Restart", "; did you mean restart?"),
        ("sigusr3", "; did you mean sigusr2?"),
        ("sigquux", ""),
        ("sig", ""),
        ("enable now", "; did you mean enable -now?"),
        ("restart httpd", ""),
        ("--now", ""),
    ],
)
def test_unknown_word_is_refused_with_the_nearest(
    name: str, word: str, rest: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        check_words(name, ["restart", word])

    said = str(caught.value)
    assert said.startswith(f"{name}: no action {word}")
    assert not rest or said.endswith(rest)
