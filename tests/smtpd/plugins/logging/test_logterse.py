"""logging/logterse: the line that statistics read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.smtp import Conversation, load


def client(tmp_path: Path) -> Conversation:
    plugins = "logging/logterse\nrcpt_ok\nqueue/null"
    return Conversation(load(tmp_path, {"plugins": plugins, "databytes": "5000"}))


def fields(capfd: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The fields of every such line, what stands before them split off."""
    lines = capfd.readouterr().err.split("\n")
    return [line.split("` ", 1)[1].split("\t") for line in lines if "` " in line]


def test_message_that_was_taken_has_its_fields_in_order(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path) as one:
        one.envelope("a@far.test", "b@here.test", "c@here.test")
        one.send("Message-ID: <1@far.test>\r\n\r\n")

    assert fields(capfd) == [
        [
            "192.0.2.1",
            "[192.0.2.1]",
            "client.test",
            "<a@far.test>",
            "<b@here.test>,<c@here.test>",
            "queued",
            "",
            "<1@far.test>",
        ]
    ]


def test_line_begins_with_session_and_hook(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path) as one:
        one.deliver()

    log = capfd.readouterr().err
    assert "\n1.1 (queue_post) logging/logterse: ` 192.0.2.1\t" in log


def test_refused_recipient_is_named_with_plugin_and_number(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path) as one:
        one.say("EHLO c", "MAIL FROM:<>", "RCPT TO:<b@here.test>")
        one.say("RCPT TO:<x@far.test>")

    envelope = ["<>", "<b@here.test>,<x@far.test>"]
    verdict = ["rcpt_ok", "901", "Relaying denied"]
    assert fields(capfd) == [["192.0.2.1", "[192.0.2.1]", "c", *envelope, *verdict]]


@pytest.mark.parametrize("name", ["a\tb", "a\x1b[31m", "a\x7f", "a\u0085b"])
def test_hello_cannot_break_the_line(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path) as one:
        one.say(f"EHLO {name}")
        one.connection.hello = one.connection.hello or name  # if it was refused
        one.say("EHLO c", "MAIL FROM:<a@far.test>", "RCPT TO:<b@here.test>")
        one.connection.hello = name
        one.send()

    (line,) = fields(capfd)
    assert len(line) == 8
    assert line[2].isprintable()
    assert line[3] == "<a@far.test>"


def test_message_id_cannot_break_the_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with client(tmp_path) as one:
        one.envelope()
        one.send(b"Message-ID: <a\x00b\t\xff\x1b>\r\n\tqueued\r\n\r\n")

    (line,) = fields(capfd)
    assert len(line) == 8
    assert line[7] == "<a\\x00b \ufffd\\x1b> queued"
