"""AUTH PLAIN and LOGIN, as RFC 4954 and 4616 have them."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.smtpd.sasl import (
    MAX_LINE_BYTES,
    Challenge,
    Credentials,
    Exchange,
    Failure,
    Step,
)

ASK_NAME = Challenge("VXNlcm5hbWU6")
ASK_PASSWORD = Challenge("UGFzc3dvcmQ6")


def encoded(data: bytes | str) -> str:
    return b64encode(data.encode() if isinstance(data, str) else data).decode()


def played(mechanism: str, initial: str | None, *lines: str) -> Step:
    """The last step of an exchange, all steps before it being challenges."""
    exchange = Exchange(mechanism)
    step = exchange.begin(initial)
    for line in lines:
        assert isinstance(step, Challenge)
        step = exchange.answer(line)
    return step


def refusal(step: Step) -> tuple[int, str]:
    assert isinstance(step, Failure)
    return step.code, step.enhanced


def test_plain_is_one_answer_with_the_command_or_behind_it() -> None:
    answer = encoded("\0ann\0sesame")

    assert played("PLAIN", answer) == Credentials("ann", "sesame")
    assert played("PLAIN", None) == Challenge("")
    assert played("PLAIN", None, answer) == Credentials("ann", "sesame")


def test_login_asks_for_the_name_and_then_for_the_password() -> None:
    name, password = encoded("ann"), encoded("sesame")

    assert played("LOGIN", None) == ASK_NAME
    assert played("LOGIN", None, name) == ASK_PASSWORD
    assert played("LOGIN", None, name, password) == Credentials("ann", "sesame")
    assert played("LOGIN", name) == ASK_PASSWORD
    assert played("LOGIN", name, password) == Credentials("ann", "sesame")


@pytest.mark.parametrize("mechanism", ["", "plain", "CRAM-MD5", "XOAUTH2", "PLAIN "])
def test_other_mechanisms_are_not_there(mechanism: str) -> None:
    with pytest.raises(ValueError, match="no mechanism"):
        Exchange(mechanism)


def test_name_and_password_are_in_utf_8() -> None:
    step = played("PLAIN", encoded("\0änn@örtchen.test\0pass wörd: €"))

    assert step == Credentials("änn@örtchen.test", "pass wörd: €")


def test_client_may_say_that_it_acts_as_itself() -> None:
    step = played("PLAIN", encoded("ann\0ann\0sesame"))

    assert step == Credentials("ann", "sesame", "ann")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ann",
        b"ann\0sesame",
        b"\0ann\0sesame\0",
        b"\0ann\0ses\0ame",
        b"\0\0sesame",
        b"\0ann\0",
        b"\0\0",
        b"bob\0ann\0sesame",
        b"\xff\0ann\0sesame",
        b"\0a\xffn\0sesame",
        b"\0ann\0ses\xc3",
        b"\0an\nn\0sesame",
        b"\0ann\0ses\tame",
        b"\0an\x7fn\0sesame",
        "\0ann\0ses\x85ame".encode(),
    ],
)
def test_plain_that_is_not_as_it_should_be_is_refused(data: bytes) -> None:
    assert refusal(played("PLAIN", None, encoded(data))) == (535, "5.7.8")
    assert refusal(played("PLAIN", encoded(data) or "=")) == (535, "5.7.8")


@pytest.mark.parametrize("data", [b"", b"a\0n", b"\xff", b"a\r\nn"])
def test_login_that_is_not_as_it_should_be_is_refused(data: bytes) -> None:
    assert refusal(played("LOGIN", None, encoded(data))) == (535, "5.7.8")
    step = played("LOGIN", None, encoded("ann"), encoded(data))
    assert refusal(step) == (535, "5.7.8")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(
    "line",
    [
        "=",
        "****",
        "QQ",
        "QQ=",
        "Q===",
        "=QQ=",
        "QQ==QQ==",
        "QQ== ",
        "Q Q=",
        "QQ-_",
        "é",
    ],
)
def test_what_is_not_base64_is_a_fault_of_syntax(mechanism: str, line: str) -> None:
    assert refusal(played(mechanism, None, line)) == (501, "5.5.2")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_equals_sign_is_an_empty_answer_only_with_the_command(mechanism: str) -> None:
    assert refusal(played(mechanism, "=")) == (535, "5.7.8")
    assert refusal(played(mechanism, None, "=")) == (501, "5.5.2")


@pytest.mark.parametrize("lines", [["*"], [encoded("ann"), "*"]])
def test_client_may_cancel(lines: list[str]) -> None:
    assert refusal(played("LOGIN", None, *lines)) == (501, "5.7.0")
    assert refusal(played("PLAIN", None, "*")) == (501, "5.7.0")


def test_line_may_be_as_long_as_the_standard_says_and_no_longer() -> None:
    longest = encoded("x" * (MAX_LINE_BYTES // 4 * 3))
    assert len(longest) == 12288

    assert played("LOGIN", None, longest) == ASK_PASSWORD
    assert refusal(played("LOGIN", None, longest + "AAAA")) == (500, "5.5.6")
    assert refusal(played("PLAIN", longest + "AAAA")) == (500, "5.5.6")


def test_exchange_that_is_over_goes_no_further() -> None:
    exchange = Exchange("PLAIN")
    exchange.begin("=")

    step = exchange.answer(encoded("\0ann\0sesame"))

    assert refusal(step) == (503, "5.5.1")


def test_password_is_in_no_text_about_credentials() -> None:
    step = played("PLAIN", encoded("\0ann\0sesame"))

    assert "sesame" not in repr(step) + str(step) + f"{step}"
    assert "ann" in repr(step)


answers = st.one_of(
    st.text(),
    st.sampled_from(["*", "=", ""]),
    st.binary().map(encoded),
    st.tuples(st.text(), st.text(), st.text()).map(
        lambda parts: encoded("\0".join(parts).encode("utf-8", "replace"))
    ),
    st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")),
)


@given(
    st.sampled_from(["PLAIN", "LOGIN"]),
    st.none() | answers,
    st.lists(answers, max_size=4),
)
def test_no_input_breaks_an_exchange(
    mechanism: str, initial: str | None, lines: list[str]
) -> None:
    exchange = Exchange(mechanism)

    steps = [exchange.begin(initial), *map(exchange.answer, lines)]

    ends = [n for n, step in enumerate(steps) if not isinstance(step, Challenge)]
    if ends:  # and then for good
        rest = steps[ends[0] + 1 :]
        assert all(isinstance(step, Failure) for step in rest)
    for step in steps:
        if isinstance(step, Credentials):
            assert step.user
            assert step.password
            assert not any(sign in step.user + step.password for sign in "\0\r\n")
