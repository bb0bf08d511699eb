"""Encryption: STARTTLS, and what an attacker between client and server cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.certificate import make_certificate
from smeconf.paths import Paths
from smeconf.system import System
from tests.support.smtp import MAIL, Filter, load

PLUGINS = "tls\nrcpt_ok\nqueue/maildir var/mail"


@pytest.fixture
def files() -> dict[str, str]:
    return {"plugins": PLUGINS}


def certified(tmp_path: Path) -> None:
    make_certificate(Paths(str(tmp_path / "root")), "mx.test", System())


def test_message_comes_encrypted(tmp_path: Path, files: dict[str, str]) -> None:
    certified(tmp_path)
    with Filter(tmp_path, files) as filter:
        client = filter.connect("127.0.0.2")
        client.read()
        assert "STARTTLS" in client.say("EHLO client.test")

        used = client.start_tls()

        assert used.startswith("TLSv1.3 ")
        assert "STARTTLS" not in client.say("EHLO client.test")
        client.say("MAIL FROM:<a@far.test>", "RCPT TO:<you@here.test>", "DATA")
        assert client.say(f"{MAIL}.").startswith("250")
        assert client.say("STARTTLS").startswith("503 5.5.1")
        assert client.say("QUIT").startswith("221")
    (mail,) = filter.mails
    assert b" with ESMTPS id " in mail


def test_commands_that_were_put_behind_starttls_are_never_used(
    tmp_path: Path, files: dict[str, str]
) -> None:
    """CVE-2011-0411 and its kin."""
    certified(tmp_path)
    with Filter(tmp_path, files) as filter:
        client = filter.connect("127.0.0.2")
        client.read()
        client.say("EHLO client.test")
        client.send(
            "STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@far.test>\r\n"
            "RCPT TO:<you@here.test>\r\n"
        )
        assert client.read() == "220 2.0.0 Go ahead"

        client.handshake()

        # Nothing is there to be read but the reply to what is said now.
        assert client.say("DATA").startswith("503 5.5.1")
        assert (
            client.say("MAIL FROM:<a@far.test>") == "503 5.5.1 Please say hello first"
        )


def test_what_was_said_in_the_clear_is_forgotten(
    tmp_path: Path, files: dict[str, str]
) -> None:
    certified(tmp_path)
    with Filter(tmp_path, files) as filter:
        client = filter.connect("127.0.0.2")
        client.read()
        client.say("EHLO client.test", "MAIL FROM:<a@far.test>")

        client.start_tls()

        assert client.say("RCPT TO:<you@here.test>") == "503 5.5.1 MAIL first"


@pytest.mark.parametrize("noise", [b"EHLO x\r\n", b"\x16\x03\x01\x00\x05nonsense", b""])
def test_handshake_that_fails_ends_the_connection(
    tmp_path: Path, files: dict[str, str], noise: bytes
) -> None:
    """No word is said in the clear to one who believes to be encrypted."""
    certified(tmp_path)
    with Filter(tmp_path, files) as filter:
        client = filter.connect("127.0.0.2")
        client.read()
        client.say("EHLO client.test")
        assert client.say("STARTTLS").startswith("220")

        client.send(noise)
        if noise:
            try:
                # A TLS alert may come, but never a reply.
                assert not client.sock.recv(4096).startswith((b"2", b"4", b"5"))
            except ConnectionResetError:
                pass
        else:
            client.reset()

        assert "(starttls) core: error, no handshake: " in filter.wait_for("starttls")
        another = filter.connect("127.0.0.2")
        assert another.read().startswith("220 ")


def test_filter_without_a_certificate_offers_no_encryption(
    tmp_path: Path, files: dict[str, str]
) -> None:
    with Filter(tmp_path, files) as filter:
        client = filter.connect("127.0.0.2")
        client.read()
        assert "STARTTLS" not in client.say("EHLO client.test")
        assert client.say("STARTTLS") == "502 5.5.1 No encryption here"
        filter.wait_for("cert.pem is not there: encryption is not offered")


def test_certificate_that_cannot_be_used_is_refused_at_load(tmp_path: Path) -> None:
    folder = tmp_path / "root/var/service/qpsmtpd/ssl"
    folder.mkdir(parents=True)
    (folder / "cert.pem").write_text("no certificate\n")
    (folder / "key.pem").write_text("no key\n")

    with pytest.raises(Exception, match=r"plugins:1: tls: .*cert.pem.*cannot be used"):
        load(tmp_path, {"plugins": PLUGINS})


def test_certificate_of_the_site_is_never_touched(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    made = make_certificate(paths, "mx.test", System())
    assert made
    text = Path(made).read_bytes()

    assert make_certificate(paths, "other.test", System()) is None

    assert Path(made).read_bytes() == text
    key = Path(made).with_name("key.pem")
    assert key.stat().st_mode & 0o077 in (0, 0o040)
