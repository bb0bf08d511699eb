"""The conversation: which command may come when, and what is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.smtp import Conversation, load, mails


@pytest.fixture
def client(tmp_path: Path) -> Conversation:
    return Conversation(load(tmp_path))


def test_mail_is_taken(tmp_path: Path, client: Conversation) -> None:
    with client:
        assert client.greeting == "220 mx.test ESMTP"
        assert client.say("EHLO client.test") == (
            "250-mx.test\n250-PIPELINING\n250-SIZE 0\n250-8BITMIME\n"
            "250-SMTPUTF8\n250-CHUNKING\n250 ENHANCEDSTATUSCODES"
        )
        assert client.say("MAIL FROM:<a@far.test>") == "250 2.1.0 Sender accepted"
        assert client.say("RCPT TO:<you@here.test>") == "250 2.1.5 Recipient accepted"
        assert client.send().startswith("250 2.0.0 Queued! ")
        assert client.say("QUIT") == "221 2.0.0 mx.test says goodbye"
        assert client.session.closing

    (mail,) = mails(tmp_path / "root/var/mail")
    head, _, body = mail.partition(b"\n\n")
    assert head.startswith(
        b"Return-Path: <a@far.test>\nDelivered-To: you@here.test\n"
        b"Received: from client.test ([192.0.2.1])\n"
        b"\tby mx.test (smeconf) with ESMTP id 1.1\n\tfor <you@here.test>;\n\t"
    )
    assert head.endswith(b"\nSubject: hello")
    assert body == b"Hello.\n"


def test_received_names_no_recipient_of_several(
    tmp_path: Path, client: Conversation
) -> None:
    with client:
        client.deliver("you@here.test", "secret@here.test")

    (mail,) = mails(tmp_path / "root/var/mail")
    assert b"for <" not in mail


def test_helo_gets_one_line_and_is_noted_as_smtp(
    tmp_path: Path, client: Conversation
) -> None:
    with client:
        assert client.say("HELO client.test") == "250 mx.test"
        client.say("MAIL FROM:<>", "RCPT TO:<you@here.test>")
        client.send()

    (mail,) = mails(tmp_path / "root/var/mail")
    assert b"with SMTP id" in mail


@pytest.mark.parametrize(
    ("before", "command", "reply"),
    [
        ([], "MAIL FROM:<a@x.test>", "503 5.5.1 Please say hello first"),
        ([], "EHLO", "501 5.5.4 EHLO takes your host name"),
        ([], "HELO ", "501 5.5.4 HELO takes your host name"),
        (["EHLO c"], "RCPT TO:<you@here.test>", "503 5.5.1 MAIL first"),
        (["EHLO c"], "DATA", "503 5.5.1 MAIL first"),
        (["EHLO c", "MAIL FROM:<a@x.test>"], "DATA", "503 5.5.1 RCPT first"),
        (["EHLO c", "MAIL FROM:<a@x.test>"], "DATA x", "501 5.5.4 DATA takes no"),
        (["EHLO c", "MAIL FROM:<a@x.test>"], "MAIL FROM:<>", "503 5.5.1 One MAIL"),
        (["EHLO c", "MAIL FROM:<a@x.test>", "RSET"], "DATA", "503 5.5.1 MAIL first"),
        (["EHLO c", "MAIL FROM:<a@x.test>", "EHLO c"], "DATA", "503 5.5.1 MAIL first"),
        (["EHLO c", "MAIL FROM:<a@x.test>", "HELO c"], "DATA", "503 5.5.1 MAIL first"),
        (
            ["EHLO c", "MAIL FROM:<a@x.test>", "RCPT TO:<x@far.test>"],
            "DATA",
            "503 5.5.1 RCPT first",
        ),
        (["EHLO c", "MAIL FROM:<bad"], "MAIL FROM:<a@x.test>", "250 2.1.0"),
        (["EHLO c", "EHLO"], "MAIL FROM:<a@x.test>", "250 2.1.0"),
        (["EHLO c"], "MAIL FROM:<a@@x.test>", "501 5.1.7 Sorry, the address cannot"),
        ([], "noop anything", "250 2.0.0 OK"),
        ([], "RSET", "250 2.0.0 OK"),
        ([], "VRFY you", "252 2.1.5"),
        ([], "HELP", "214 2.0.0 Commands: HELO EHLO MAIL"),
        ([], "STARTTLS", "502 5.5.1 No encryption here"),
        ([], "AUTH PLAIN", "502 5.5.1 No logging in here"),
        ([], "", "500 5.5.1 Unrecognized command"),
        ([], "NO\0OP", "500 5.5.1 Unrecognized command"),
    ],
)
def test_command_is_answered_by_what_came_before(
    client: Conversation, before: list[str], command: str, reply: str
) -> None:
    with client:
        client.say(*before, "NOOP")

        assert client.say(command).startswith(reply)


@pytest.mark.parametrize("line", [b"NOOP\n", b"NOOP\r", b"NOOP", b"\n", b""])
def test_line_that_crlf_does_not_end_is_no_command(
    client: Conversation, line: bytes
) -> None:
    with client:
        reply = client._run(client.session.command(line))

    assert reply == "500 5.5.2 A line ends with CR LF"


@pytest.mark.parametrize("line", [b"NOOP\rRSET\r\n", b"NOOP \xff\r\n", b"\x80\r\n"])
def test_line_with_control_characters_or_no_utf8_is_no_command(
    client: Conversation, line: bytes
) -> None:
    with client:
        reply = client._run(client.session.command(line))

    assert reply == "500 5.5.1 Unrecognized command"
    assert client.connection.unrecognized_commands == 1


def test_second_message_starts_afresh(tmp_path: Path, client: Conversation) -> None:
    with client:
        client.deliver("you@here.test")
        assert client.say("DATA") == "503 5.5.1 MAIL first"
        client.say("MAIL FROM:<b@far.test>", "RCPT TO:<two@here.test>")
        client.send("Subject: second\r\n\r\n")

    first, second = sorted(mails(tmp_path / "root/var/mail"), key=len, reverse=True)
    assert b"Subject: hello" in first
    assert b"hello" not in second
    assert b"Delivered-To: two@here.test\n" in second
    assert b"you@here.test" not in second


def test_size_is_told_and_held_to_at_mail(tmp_path: Path) -> None:
    with Conversation(load(tmp_path, {"databytes": "100"})) as client:
        assert "250-SIZE 100" in client.say("EHLO c")
        refused = client.say("MAIL FROM:<a@x.test> SIZE=101")
        assert refused == "552 5.3.4 Message too big: 100 bytes at most"
        assert client.say("MAIL FROM:<a@x.test> SIZE=100").startswith("250")


def test_message_that_outgrows_the_limit_is_refused(tmp_path: Path) -> None:
    with Conversation(load(tmp_path, {"databytes": "100"})) as client:
        assert client.deliver(message="x" * 99 + "\r\n") == "552 5.3.4 Message too big!"
        client.say("RSET")
        assert client.deliver(message="x" * 98 + "\r\n").startswith("250")

    assert len(mails(tmp_path / "root/var/mail")) == 1


def test_message_that_outgrows_the_limit_is_not_kept(tmp_path: Path) -> None:
    with Conversation(load(tmp_path, {"databytes": "100"})) as client:
        client.envelope()
        client.say("DATA")
        for _ in range(50):
            assert client.session.receive(b"x" * 90 + b"\r\n") is None
            message = client.session._message
            assert sum(map(len, message._pieces)) <= 200
        assert message.size == 50 * 92 - 2  # the last CRLF may begin the end


@pytest.mark.parametrize(
    "message", ["a\nb\r\n", "a\rb\r\n", "a\n.\r\nb\r\n", "a\r\n.\nb\r\n"]
)
def test_bare_newline_is_refused_with_one_reply(tmp_path: Path, message: str) -> None:
    with Conversation(load(tmp_path)) as client:
        reply = client.deliver(message=message)

        assert reply == "550 5.6.0 A bare CR or LF in the message"
        assert client.deliver().startswith("250")

    assert len(mails(tmp_path / "root/var/mail")) == 1


def test_spool_without_room_defers_the_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configuration = load(tmp_path)
    (tmp_path / "root/var/spool/qpsmtpd").rmdir()

    with Conversation(configuration) as client:
        reply = client.deliver(message="x" * 1_100_000 + "\r\n")
        assert reply == "452 4.3.1 No room for the message, try again later"
        assert client.deliver().startswith("250")

    assert "(data) core: error, the spool cannot be written: No such file" in (
        capfd.readouterr().err
    )
    assert len(mails(tmp_path / "root/var/mail")) == 1


def test_large_message_arrives_whole(tmp_path: Path) -> None:
    body = "".join(f"{number:076}\r\n" for number in range(20_000))

    with Conversation(load(tmp_path)) as client:
        assert client.deliver(message="Subject: big\r\n\r\n" + body).startswith("250")

    (mail,) = mails(tmp_path / "root/var/mail")
    assert mail.endswith(body.replace("\r\n", "\n").encode())


def test_recipient_that_no_plugin_decides_is_put_off(tmp_path: Path) -> None:
    with Conversation(load(tmp_path, {"plugins": "relay"})) as client:
        client.say("EHLO c", "MAIL FROM:<>")

        assert client.say("RCPT TO:<you@here.test>") == (
            "450 4.7.1 No plugin decided if relaying is allowed"
        )


def test_message_without_a_queue_is_put_off(tmp_path: Path) -> None:
    with Conversation(load(tmp_path, {"plugins": "rcpt_ok"})) as client:
        reply = client.deliver()

    assert reply == "452 4.7.1 Queuing declined or disabled, try again later"
