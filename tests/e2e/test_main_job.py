"""setprop, signal-event, and the filter does it: with real processes and sockets."""

from __future__ import annotations

import os
import pwd
import signal
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.gateway import Gateway, free_port

LISTED_IN_ZEN = "127.9.8.2"
LISTED_IN_B = "127.9.8.3"
UNLISTED = "127.9.8.4"

RBL_LIST = (
    "zen.example.test,"
    "b.example.test:Blocked - see <http://bbl.example.test/q.cgi?ip=%IP%>"
)


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    zones = {
        "2.8.9.127.zen.example.test": {"A": ["127.0.0.2"], "TXT": ['"Listed by zen"']},
        "3.8.9.127.b.example.test": {"A": ["127.0.0.2"]},
        "2.0.0.127.zen.example.test": {"A": ["127.0.0.2"]},
        "2.0.0.127.b.example.test": {"A": ["127.0.0.2"]},
    }
    with DnsServer(zones) as server:
        yield server


@pytest.fixture
def gateway(tmp_path: Path, dns: DnsServer) -> Iterator[Gateway]:
    with Gateway(tmp_path) as gateway:
        gateway.setprop(DNSServers=f"127.0.0.1@{dns.port}")
        gateway.up()
        yield gateway


def refusal(gateway: Gateway, source: str) -> str:
    """Return code and text with which a message from ``source`` is refused."""
    with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        gateway.send(source)
    code, text = caught.value.recipients["user@local.test"]
    return f"{code} {text.decode()}"


def test_two_properties_and_an_event_refuse_listed_clients(gateway: Gateway) -> None:
    gateway.send(LISTED_IN_B, subject="before")

    gateway.setprop(RBLList=RBL_LIST)
    gateway.setprop(DNSBL="enabled")
    gateway.email_update()

    assert refusal(gateway, LISTED_IN_ZEN) == "550 5.7.1 Listed by zen"
    assert refusal(gateway, LISTED_IN_B) == (
        "550 5.7.1 Blocked - see <http://bbl.example.test/q.cgi?ip=127.9.8.3>"
    )
    line = gateway.wait_for("\t903\t(dnsbl) Blocked")
    assert "<ann@example.org>\t<user@local.test>\tnaughty\t" in line

    gateway.send(UNLISTED, subject="from an unlisted client")

    (message,) = (m for m in gateway.delivered() if "unlisted client" in m)
    assert "Return-Path: <ann@example.org>\nDelivered-To: user@local.test\n" in message
    assert (
        "Received: from client.example ([127.9.8.4])\n\tby mail.local.test" in message
    )
    assert message.endswith("\n\nhello\n")

    gateway.setprop(DNSBL="disabled")
    gateway.email_update()

    gateway.send(LISTED_IN_B, subject="after")

    assert any("Subject: after" in message for message in gateway.delivered())


def test_nothing_takes_effect_before_the_event(gateway: Gateway) -> None:
    gateway.setprop(RBLList=RBL_LIST, DNSBL="enabled")

    gateway.send(LISTED_IN_B)

    assert len(gateway.delivered()) == 1


def test_session_that_is_open_ends_as_it_began(gateway: Gateway) -> None:
    with gateway.client(LISTED_IN_B) as client:
        client.ehlo()

        gateway.setprop(RBLList=RBL_LIST, DNSBL="enabled")
        gateway.email_update()

        client.sendmail("ann@example.org", ["user@local.test"], "Subject: x\r\n\r\n")
    assert len(gateway.delivered()) == 1
    assert refusal(gateway, LISTED_IN_B).startswith("550")


def test_mail_to_postmaster_is_taken_from_a_listed_client(gateway: Gateway) -> None:
    gateway.setprop(RBLList=RBL_LIST, DNSBL="enabled")
    gateway.email_update()

    with gateway.client(LISTED_IN_B) as client:
        client.sendmail("ann@example.org", ["postmaster@local.test"], "Subject: x\r\n")

    (message,) = gateway.delivered()
    assert "Delivered-To: postmaster@local.test" in message


def test_other_domains_are_refused_to_strangers(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.ehlo()
        client.mail("ann@example.org")

        code, text = client.rcpt("someone@elsewhere.example")

    assert (code, text) == (550, b"5.7.1 Relaying denied")


def test_dns_server_that_does_not_answer_lets_mail_pass(
    gateway: Gateway, dns: DnsServer
) -> None:
    dns.fail("*", "silent")
    gateway.setprop(RBLList="zen.example.test", DNSBL="enabled")
    gateway.email_update()

    gateway.send(LISTED_IN_ZEN)

    assert len(gateway.delivered()) == 1
    gateway.wait_for("dnsbl: error, zen.example.test: no answer in 4.0 s")


def test_list_that_lists_the_world_is_set_aside(
    gateway: Gateway, dns: DnsServer
) -> None:
    dns.zones["*.zen.example.test"] = {"A": ["127.0.0.2"]}
    gateway.setprop(RBLList="zen.example.test", DNSBL="enabled")
    gateway.email_update()
    gateway.wait_for("dnsbl: set aside: zen.example.test lists 127.0.0.1")

    gateway.send(UNLISTED)

    assert len(gateway.delivered()) == 1


def contents(gateway: Gateway) -> dict[str, bytes]:
    """Return what the generated files hold."""
    return {name: data for name, (data, _) in gateway.config_files().items()}


FAULTS = [
    pytest.param(
        {"RBLList": "zen.example.test,'b.example.test"},
        "/dnsbl_zones/10zones:2: entry 2 opens a quote (') and never closes it"
        " (last read: qpsmtpd{RBLList})",
        id="quote never closed",
    ),
    pytest.param(
        {"RBLList": "zen.example.test,-b-.example.test"},
        "/dnsbl_zones:5: '-b-.example.test' is not a zone",
        id="zone that is no host name",
    ),
    pytest.param(
        {"RBLList": "zen.example.test:one\nb.example.test"},
        "/dnsbl_zones/10zones:3: the value holds a control character, '\\n',",
        id="newline in a value",
    ),
    pytest.param(
        {"QueueMethod": "mailddir"},
        "/peers/0:13: there is no plugin queue/mailddir; did you mean queue/maildir?",
        id="misspelt plugin",
    ),
    pytest.param(
        {"DNSServers": "127.0.0.300"},
        "/dns_servers:4: '127.0.0.300' is not a DNS server",
        id="DNS server that is no address",
    ),
]


@pytest.mark.parametrize(("properties", "fault"), FAULTS)
def test_configuration_that_would_not_load_is_not_installed(
    gateway: Gateway, properties: dict[str, str], fault: str
) -> None:
    words = [word for pair in properties.items() for word in pair]
    gateway.run("config", "--force", "setprop", "qpsmtpd", "DNSBL", "enabled", *words)
    before = gateway.config_files()

    result = gateway.email_update(check=False)

    assert result.returncode == 1
    assert fault in result.stderr.splitlines()[0]
    assert gateway.config_files() == before
    gateway.send()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("qpsmtpd", "DNSBL", "yes"), "must be enabled or disabled, not 'yes'"),
        (("qpsmtpd", "RBLList", "a.b,'c.d"), "entry 2 opens a quote"),
        (("qpsmtpd", "RBLList", "a.b,c_!.d"), "entry 'c_!.d'; must be a comma list"),
        (("qpsmtpdd", "DNSBL", "enabled"), "no such key; did you mean qpsmtpd?"),
    ],
)
def test_value_that_cannot_be_right_is_refused_when_it_is_set(
    tmp_path: Path, words: tuple[str, ...], fault: str
) -> None:
    with Gateway(tmp_path) as gateway:
        result = gateway.run("config", "setprop", *words, check=False)

    assert result.returncode == 1
    assert fault in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_broken_fragment_of_the_site_changes_nothing(gateway: Gateway) -> None:
    custom = gateway.root / "etc/smeconf/templates-custom"
    fragment = custom / "var/service/qpsmtpd/config/me/20own"
    fragment.parent.mkdir(parents=True)
    fragment.write_text("# a comment\n{{ qpsmtpd.RBLLst }}\n")
    before = gateway.config_files()

    result = gateway.email_update(check=False)

    assert result.returncode == 1
    assert result.stderr.startswith(
        f"signal-event: {fragment}:2: qpsmtpd{{RBLLst}} does not exist; "
        f"did you mean RBLList?"
    )
    assert gateway.config_files() == before
    gateway.send()


def test_port_in_use_leaves_the_filter_where_it_was(gateway: Gateway) -> None:
    before = contents(gateway)
    taken = free_port()
    with _listening(taken):
        gateway.setprop(TCPPort=str(taken))

        result = gateway.email_update(check=False)

    assert result.returncode == 1
    assert (
        f"cannot listen on 127.0.0.1:{taken}: Address already in use" in result.stderr
    )
    assert contents(gateway) == before
    gateway.send()


def test_port_can_be_changed_by_the_event(gateway: Gateway) -> None:
    gateway.setprop(TCPPort=str(free_port()))
    gateway.email_update()
    gateway.port = int(gateway.run("config", "getprop", "qpsmtpd", "TCPPort").stdout)

    gateway.send()

    assert len(gateway.delivered()) == 1


def test_filter_that_is_disabled_stops_and_the_event_succeeds(
    gateway: Gateway,
) -> None:
    gateway.setprop(status="disabled")

    result = gateway.email_update()

    assert result.stderr == "qpsmtpd is disabled: it stops\n"
    assert gateway.wait_until_ended() == 0
    assert not (gateway.root / "run/qpsmtpd/qpsmtpd.pid").exists()


def test_event_installs_what_a_stopped_filter_will_find(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.run("smeconf", "init")
        gateway.setprop(RBLList="b.example.test:no", DNSBL="enabled")

        result = gateway.email_update()

        assert result.stderr == (
            "qpsmtpd is not running: what was installed waits for it\n"
        )
        zones = gateway.config_files()["dnsbl_zones"][0]
        assert zones.endswith(b"\nb.example.test:no\n")


def test_target_that_did_not_change_keeps_its_inode(gateway: Gateway) -> None:
    before = gateway.config_files()
    gateway.setprop(RBLList="b.example.test", DNSBL="enabled")

    gateway.email_update()

    after = gateway.config_files()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"dnsbl_zones", "peers/0"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_ends_cleanly_on_a_signal(tmp_path: Path, number: int) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.up()
        pid_file = tmp_path / "run/qpsmtpd/qpsmtpd.pid"
        pid = int(pid_file.read_text())
        os.kill(pid, 0)

        status = gateway.stop(number)

        assert status == 0
        assert not pid_file.exists()
        assert gateway.log().splitlines()[-1].endswith("smeconf-smtpd: stopped")


def test_null_queue_throws_mail_away_and_warns(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        gateway.setprop(QueueMethod="null")
        gateway.up()

        gateway.send()

        assert "warning: queue/null: mail is accepted and THROWN AWAY" in gateway.log()
        assert gateway.delivered() == []


def test_forwarding_hands_mail_to_another_gateway(tmp_path: Path) -> None:
    with Gateway(tmp_path / "inner") as inner, Gateway(tmp_path / "outer") as outer:
        inner.up()
        outer.setprop(QueueMethod="smtp-forward", QueueTarget=f"127.0.0.1:{inner.port}")
        outer.up()

        outer.send(subject="handed on")

        (message,) = inner.delivered()
        assert message.count("Received: ") == 2
        assert "Subject: handed on" in message

        inner.stop()
        with pytest.raises(smtplib.SMTPDataError) as caught:
            outer.send(subject="nobody there")
        assert caught.value.smtp_code == 452


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_filter_started_by_root_runs_as_its_user(tmp_path: Path) -> None:
    _open_to_all(tmp_path)
    with Gateway(tmp_path) as gateway:
        gateway.setprop(User="nobody", QueueTarget="var/mail")
        gateway.maildir = tmp_path / "var/mail"
        gateway.up()
        master = int((tmp_path / "run/qpsmtpd/qpsmtpd.pid").read_text())

        gateway.send()

        owners = {os.stat(f"/proc/{pid}").st_uid for pid in _family(master)}
        assert owners == {_uid("nobody")}
        assert len(gateway.delivered()) == 1
        gateway.setprop(QueueTarget="var/other")
        gateway.email_update()
        gateway.maildir = tmp_path / "var/other"
        gateway.send()
        assert len(gateway.delivered()) == 1


def _listening(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def _open_to_all(path: Path) -> None:
    """Let other users reach a directory below /tmp."""
    for directory in (path, *path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(0o755 | directory.stat().st_mode)


def _family(master: int) -> list[int]:
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [master, *map(int, children)]


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid
