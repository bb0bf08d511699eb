"""What is known of a connection and of its message."""

from __future__ import annotations

from smeconf.smtpd.address import NULL
from smeconf.smtpd.plugin import RejectType
from smeconf.smtpd.state import Connection, Grievance, Transaction


def test_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() -> None:
    connection = Connection("1", "::ffff:192.0.2.1", 25)

    assert connection.remote == str(connection.address) == "192.0.2.1"
    assert Connection("1", "fe80::1%eth0", 25).address.is_link_local


def test_whitelists_make_immune_but_grant_no_relay() -> None:
    connection = Connection("1", "192.0.2.1", 25)
    assert not connection.is_immune

    connection.transaction = Transaction(NULL)
    connection.transaction.whitelisted_sender = True

    assert connection.is_immune
    assert not connection.relay_client
    connection.transaction = None
    assert not connection.is_immune


def test_grievance_about_a_message_ends_with_it() -> None:
    connection = Connection("1", "192.0.2.1", 25)
    client = Grievance("dnsbl", "listed", RejectType.PERM)
    message = Grievance("uribl", "bad link", RejectType.PERM)

    connection.complain(client)
    connection.transaction = Transaction(NULL)
    connection.complain(message)

    assert connection.grievances == [client, message]
    connection.transaction = None
    assert connection.grievances == [client]
