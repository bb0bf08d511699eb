"""naughty: carries out the refusals that others put off."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.smtpd.hooks import Verdict
from smeconf.smtpd.plugin import RejectType
from smeconf.smtpd.state import Grievance
from tests.support.smtp import Conversation, load


def client(
    tmp_path: Path,
    stage: str,
    spares: bool = False,
    type: RejectType = RejectType.PERM,
) -> Conversation:
    """A client about which the plugin `list` has a grievance from the beginning."""
    plugins = f"naughty reject {stage}\nlogging/logterse\nrcpt_ok\nqueue/null"
    one = Conversation(load(tmp_path, {"plugins": plugins}))
    one.connection.complain(Grievance("list", "bad one", type, spares))
    return one


STEPS = [
    ("connect", None),
    ("ehlo", "EHLO c"),
    ("mail", "MAIL FROM:<a@x.test>"),
    ("rcpt", "RCPT TO:<you@here.test>"),
    ("data", "DATA"),
]
CODES = {"connect": 550, "mail": 550, "rcpt": 550, "data": 554, "data_post": 552}


@pytest.mark.parametrize("stage", CODES)
def test_refuses_at_its_stage_and_not_before(tmp_path: Path, stage: str) -> None:
    refusal = f"{CODES[stage]} 5.7.1 bad one"
    with client(tmp_path, stage) as one:
        for step, line in STEPS:
            reply = one.greeting if line is None else None
            if line == "DATA" and stage == "data_post":
                assert one.send() == refusal
                return
            reply = reply or one.say(line or "")
            if step == stage:
                assert reply == refusal
                return
            assert reply[:2] in ("22", "25")


def test_stage_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="plugins:1: reject: must be one of connect, "):
        client(tmp_path, "ehlo")


def test_log_names_the_plugin_that_found_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path, "rcpt") as one:
        one.connection.complain(Grievance("other", "worse", RejectType.TEMP))
        one.say("EHLO c", "MAIL FROM:<a@x.test>")
        reply = one.say("RCPT TO:<you@here.test>")

    assert reply == "550-5.7.1 bad one\n550 5.7.1 worse"
    log = capfd.readouterr().err
    assert "1.1 (rcpt) naughty: fail, (list) bad one; (other) worse\n" in log
    assert "\tnaughty\t901\t(list) bad one; (other) worse\n" in log


@pytest.mark.parametrize(
    ("type", "code", "closes"),
    [
        (RejectType.PERM, "550", False),
        (RejectType.TEMP, "450", False),
        (RejectType.DISCONNECT, "550", True),
        (RejectType.TEMP_DISCONNECT, "421", True),
    ],
)
def test_refuses_as_the_plugin_that_found_it_wanted(
    tmp_path: Path, type: RejectType, code: str, closes: bool
) -> None:
    with client(tmp_path, "rcpt", type=type) as one:
        one.say("EHLO c", "MAIL FROM:<a@x.test>")
        assert one.say("RCPT TO:<you@here.test>")[:3] == code
        assert one.session.closing is closes
    assert type.value in Verdict


@pytest.mark.parametrize(
    ("recipients", "code"),
    [
        (["postmaster@here.test"], "354"),
        (["postmaster@here.test", "ABUSE@here.test"], "354"),
        (["postmaster@here.test", "you@here.test"], "554"),
        (["you@here.test"], "554"),
    ],
)
def test_role_accounts_are_spared_if_all_recipients_are_some(
    tmp_path: Path, recipients: list[str], code: str
) -> None:
    with client(tmp_path, "data", spares=True) as one:
        one.envelope("a@far.test", *recipients)
        assert one.say("DATA")[:3] == code


def test_role_accounts_are_not_spared_what_the_plugin_did_not_mean_to(
    tmp_path: Path,
) -> None:
    with client(tmp_path, "data", spares=False) as one:
        one.envelope("a@far.test", "postmaster@here.test")
        assert one.say("DATA")[:3] == "554"


def test_what_is_found_after_the_stage_is_refused_at_the_end(tmp_path: Path) -> None:
    with client(tmp_path, "rcpt") as one:
        one.connection._grievances.clear()
        one.envelope()
        one.connection.complain(Grievance("late", "found late", RejectType.PERM))
        assert one.send() == "552 5.7.1 found late"


def test_what_was_found_in_one_message_does_not_touch_the_next(tmp_path: Path) -> None:
    with client(tmp_path, "rcpt") as one:
        one.connection._grievances.clear()
        one.envelope()
        one.connection.complain(Grievance("late", "bad link", RejectType.PERM))
        assert one.send().startswith("552")

        assert one.deliver().startswith("250")


def test_nobody_is_refused_without_a_grievance(tmp_path: Path) -> None:
    for stage in CODES:
        with client(tmp_path, stage) as one:
            one.connection._grievances.clear()
        with Conversation(one.session.configuration) as other:
            assert other.deliver().startswith("250")
