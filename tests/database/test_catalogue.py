"""The properties that the product knows: all of those that SME's mail filter has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from smeconf.database.compile import compile_tree
from smeconf.database.schema import Key, Property
from smeconf.paths import shipped

SCHEMA = compile_tree(shipped("db"))

# Database, key or types/TYPE: properties.
NAMES = {
    "configuration qpsmtpd": (
        "status access Authentication AuthAccess TlsBeforeAuth tlsCipher tlsProtocols "
        "RelayRequiresAuth UnauthenticatedRelayClients DNSBL RBLList RHSBL SBLList "
        "URIBL UBLList Karma KarmaNegative KarmaStrikes HeloPolicy HeloReject "
        "SPFRejectPolicy DMARCReject DMARCReporting DKIMSigning VirusScan "
        "PatternsScan MaxScannerSize RequireResolvableFromHost LogLevel qplogsumm Bcc "
        "BccMode BccUser Disclaimer Instances InstancesPerIP SoftLimit TCPPort "
        "BindAddress DNSServers QueueMethod QueueTarget User Workers"
    ),
    "configuration smtpd": "tnef2mime MaxDateOffset Greeting HeloHost Proxy",
    "configuration qmail": "MaxMessageSize ConcurrencyLocal ConcurrencyRemote",
    "configuration sqpsmtpd": "status access TCPPort Instances InstancesPerIP",
    "configuration uqpsmtpd": "status access TCPPort Instances InstancesPerIP",
    "configuration ssmtpd": "Authentication",
    "configuration spamassassin": (
        "status Sensitivity TagLevel RejectLevel SortSpam SubjectTag Subject"
    ),
    "configuration clamav": "StreamMaxLength",
    "configuration clamd": "status",
    "configuration smtp-auth-proxy": "status Userid Passwd PeerPort Debug",
    "configuration modSSL": "CipherSuite",
    "configuration fetchmail": (
        "status Method FreqOffice FreqOutside FreqWeekend SecondaryMailServer "
        "SecondaryMailAccount SecondaryMailPassword SecondaryMailEnvelope"
    ),
    "configuration EmailUnknownUser": "",
    "configuration DelegateMailServer": "",
    "configuration SMTPSmartHost": "",
    "configuration SystemName": "",
    "configuration DomainName": "",
    "configuration LocalIP": "",
    "configuration LocalNetmask": "",
    "configuration ExternalIP": "",
    "configuration SystemMode": "",
    "domains types/domain": "Description MailServer DKIMSigning",
    "accounts types/user": "Visible FirstName LastName",
    "accounts types/group": "Visible Members Description",
    "accounts types/pseudonym": "Visible Account",
    "accounts types/ibay": "Group",
    "accounts types/system": "Visible",
    "networks types/network": "Mask Router RelayRequiresAuth",
    "hosts types/host": "HostType InternalIP ExternalIP MACAddress Visibility",
    "mailpatterns types/pattern": "Description Pattern Status",
    "wbl types/badhelo": "",
    "wbl types/badmailfrom": "",
    "wbl types/whitelisthosts": "",
    "wbl types/whitelisthelo": "",
    "wbl types/whitelistsenders": "",
}

DEFAULTS = {
    "RBLList": "zen.spamhaus.org,bl.spamcop.net,psbl.surriel.com",
    "SBLList": "dbl.spamhaus.org",
    "UBLList": "multi.surbl.org:8-16-64-128,black.uribl.com",
    "DNSBL": "disabled",
    "RHSBL": "disabled",
    "URIBL": "disabled",
    "Karma": "disabled",
    "DMARCReject": "disabled",
    "DMARCReporting": "disabled",
    "DKIMSigning": "disabled",
    "RelayRequiresAuth": "enabled",
    "TlsBeforeAuth": "1",
    "HeloPolicy": "lenient",
    "SPFRejectPolicy": "0",
    "Instances": "1200",
    "InstancesPerIP": "50",
}

# These fall back on something else where they are absent, so no default is written.
ABSENT = {"tlsCipher", "tlsProtocols", "HeloReject", "MaxScannerSize"}


def every_property() -> Iterator[tuple[str, Property]]:
    for database, tables in SCHEMA.items():
        for key, table in tables.items():
            known = Key(table)
            if known.value is not None:
                yield f"{database} {key}", known.value
            for name, one in known.properties.items():
                yield f"{database} {key} {name}", one


@pytest.mark.parametrize("place", NAMES)
def test_property_of_the_old_filter_is_known(place: str) -> None:
    database, key = place.split()

    known = Key(SCHEMA[database][key])

    assert set(NAMES[place].split()) - known.properties.keys() == set()


def test_every_default_passes_its_own_check() -> None:
    for name, one in every_property():
        if one.default is not None:
            assert one.find_fault(one.default) is None, name


def test_every_property_has_a_help_that_ends_a_sentence() -> None:
    for name, one in every_property():
        assert one.help.strip().endswith("."), name


def test_obsolete_property_has_no_default_and_names_its_heir() -> None:
    obsolete = {name: one for name, one in every_property() if one.obsolete}

    assert "configuration qpsmtpd RequireResolvableFromHost" in obsolete
    assert "configuration smtpd Authentication" in obsolete
    assert [name for name, one in obsolete.items() if one.default is not None] == []


def test_passwords_are_secret_and_nothing_else_is() -> None:
    secret = {name for name, one in every_property() if one.secret}

    assert secret == {
        "configuration qpsmtpd QueuePassword",
        "configuration fetchmail SecondaryMailPassword",
        "configuration smtp-auth-proxy Passwd",
    }


def test_defaults_are_those_that_are_alive_today() -> None:
    properties = Key(SCHEMA["configuration"]["qpsmtpd"]).properties

    assert {name: properties[name].default for name in DEFAULTS} == DEFAULTS
    assert {name for name in ABSENT if properties[name].default is not None} == set()


def test_ports_for_mail_programs_are_closed_until_asked_for() -> None:
    for key in ("sqpsmtpd", "uqpsmtpd"):
        status = Key(SCHEMA["configuration"][key]).properties["status"]
        assert status.default == "disabled"


def test_addresses_that_nobody_has_are_refused_unless_asked_for() -> None:
    unknown = Key(SCHEMA["configuration"]["EmailUnknownUser"]).value

    assert unknown
    assert unknown.default == "returntosender"
    assert unknown.find_fault("admin") is None


def test_property_that_is_any_other_is_found_behind_the_named_ones() -> None:
    modssl = Key(SCHEMA["configuration"]["modSSL"])

    assert modssl.find("CipherSuite") is modssl.properties["CipherSuite"]
    assert modssl.find("TCPPort") is modssl.properties["*"]
    assert Key(SCHEMA["configuration"]["qpsmtpd"]).find("RBLLst") is None
