"""Migrations: what an old machine's database becomes, once and for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.database.migrate import initialize
from smeconf.paths import shipped
from tests.support.config import Machine

SITE = "etc/smeconf/db/configuration/migrate"
DEFAULT = {
    "RBLList": "zen.spamhaus.org,bl.spamcop.net,psbl.surriel.com",
    "SBLList": "dbl.spamhaus.org",
    "UBLList": "multi.surbl.org:8-16-64-128,black.uribl.com",
}


@pytest.fixture(autouse=True)
def _no_place_of_e_smith(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESMITH_DB_DEFAULTSDIR", raising=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def migrate(machine: Machine) -> tuple[list[str], list[str]]:
    """Initialize twice, the second time to no effect; return what the first said."""
    said: list[str] = []
    warnings: list[str] = []
    initialize("configuration", machine.paths, said.append, warnings.append)
    before = machine.facts("home/e-smith/db/configuration")
    again: list[str] = []

    initialize("configuration", machine.paths, again.append, list[str]().append)

    assert machine.facts("home/e-smith/db/configuration") == before
    assert [line for line in again if "not looked at" not in line] == []
    return said, warnings


def properties(machine: Machine, key: str = "qpsmtpd") -> dict[str, str]:
    record = machine.database().read().find(key)
    assert record
    return record.properties


def migrated(machine: Machine, name: str, value: str) -> str:
    machine.records(f"qpsmtpd=service|{name}|{value}\n")
    migrate(machine)
    return properties(machine)[name]


@pytest.mark.parametrize("name", DEFAULT)
@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("a.test:b.test", "a.test,b.test"),
        ("a.test:b-2.sub.test:_c.test", "a.test,b-2.sub.test,_c.test"),
        ("a.test:8-16-64-128", None),
        ("a.test:127.0.0.2", None),
        ("a.test:64", None),
        ("a.test:b.test,c.test", None),
        ("a.test:Blocked - see <http://b.test/?ip=%IP%>", None),
        ("a.test:refused", None),
        ("a.test:b.test:", None),
        ("a.test::b.test", None),
        ("a.test: b.test", None),
        ("a.test", None),
        ("a.test,b.test", None),
        ("'a.test:b.test'", None),
        ("", None),
    ],
)
def test_colons_become_commas_only_between_bare_names(
    machine: Machine, name: str, value: str, result: str | None
) -> None:
    assert migrated(machine, name, value) == (value if result is None else result)


@pytest.mark.parametrize("name", DEFAULT)
@pytest.mark.parametrize(
    "zone",
    [
        "dnsbl.njabl.org",
        "whois.rfc-ignorant.org",
        "dsn.rfc-ignorant.org",
        "relays.ordb.org",
        "blackhole.securitysage.com",
        "dnsbl.sorbs.net",
        "RHSBL.sorbs.net",
        "ix.dnsbl.manitu.net",
    ],
)
def test_dead_list_is_taken_out_with_its_message(
    machine: Machine, name: str, zone: str
) -> None:
    value = f'a.test:8,{zone}:"no",b.test'

    assert migrated(machine, name, value) == "a.test:8,b.test"


def test_name_that_only_ends_like_a_dead_one_stays(machine: Machine) -> None:
    assert migrated(machine, "RBLList", "notsorbs.net,manitu.net") == (
        "notsorbs.net,manitu.net"
    )


@pytest.mark.parametrize("name", DEFAULT)
def test_list_that_becomes_empty_gets_its_default(machine: Machine, name: str) -> None:
    assert migrated(machine, name, "dsn.rfc-ignorant.org") == DEFAULT[name]


def test_list_that_was_empty_stays_so(machine: Machine) -> None:
    assert migrated(machine, "RBLList", "") == ""


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("sbl-xbl.spamhaus.org,a.test", "zen.spamhaus.org,a.test"),
        ("sbl-xbl.spamhaus.org:No %IP%", "zen.spamhaus.org:No %IP%"),
        ("sbl-xbl.spamhaus.org,a.test,zen.spamhaus.org:x", "a.test,zen.spamhaus.org:x"),
        ("sbl-xbl.spamhaus.org:a.test", "zen.spamhaus.org,a.test"),
    ],
)
def test_list_that_moved_is_asked_at_its_new_name(
    machine: Machine, value: str, result: str
) -> None:
    assert migrated(machine, "RBLList", value) == result


def test_quotes_are_kept_where_a_list_is_changed(machine: Machine) -> None:
    value = '"a.test:No, thanks",dnsbl.njabl.org,b.test:Don\'t'

    assert migrated(machine, "RBLList", value) == '"a.test:No, thanks",b.test:Don\'t'


def test_list_that_cannot_be_read_is_left_and_said(machine: Machine) -> None:
    machine.records("qpsmtpd=service|RBLList|'dnsbl.njabl.org\n")

    said, _ = migrate(machine)

    assert properties(machine)["RBLList"] == "'dnsbl.njabl.org"
    assert said == [
        "configuration: qpsmtpd RBLList: not looked at: "
        "entry 1 opens a quote (') and never closes it"
    ]


def test_obsolete_properties_go_or_get_their_new_names(machine: Machine) -> None:
    machine.records(
        "qpsmtpd=service|RequireResolvableFromHost|no\n"
        "smtpd=service|Authentication|disabled|Proxy|enabled\n"
        "ssmtpd=service|Authentication|disabled\n"
    )

    said, _ = migrate(machine)

    assert "RequireResolvableFromHost" not in properties(machine)
    assert properties(machine)["Authentication"] == "disabled"
    assert properties(machine, "sqpsmtpd")["Authentication"] == "disabled"
    assert properties(machine, "sqpsmtpd")["status"] == "disabled"
    assert properties(machine, "smtpd")["Proxy"] == "transparent"
    assert "Authentication" not in properties(machine, "smtpd")
    assert "configuration: smtpd Proxy: was 'enabled', is now 'transparent'" in said


def test_what_stands_under_the_new_name_wins(machine: Machine) -> None:
    machine.records(
        "qpsmtpd=service|Authentication|enabled\n"
        "smtpd=service|Authentication|disabled|Proxy|blocked\n"
    )

    migrate(machine)

    assert properties(machine)["Authentication"] == "enabled"
    assert properties(machine, "smtpd")["Proxy"] == "blocked"


def test_machine_of_years_is_brought_up_to_date(machine: Machine) -> None:
    """As SME 9 left it; what no migration is about is not touched."""
    lines = (
        "fetchmail=service|FreqOffice|every5min|FreqOutside|everyhour|FreqWeekend|"
        "everyhour|Method|standard|SecondaryMailPassword|not so secret|"
        "status|disabled\n"
        "qmail=service|ConcurrencyLocal|20|MaxMessageSize|15000000|status|enabled\n"
        "qpsmtpd=service|Bcc|disabled|BccMode|cc|BccUser|maillog|DNSBL|enabled|"
        "Instances|40|InstancesPerIP|5|LogLevel|6|MaxScannerSize|25000000|RBLList|"
        "zen.spamhaus.org:bl.spamcop.net:dnsbl.njabl.org|RHSBL|disabled|"
        "RelayRequiresAuth|enabled|RequireResolvableFromHost|no|SBLList|"
        "dsn.rfc-ignorant.org|TlsBeforeAuth|1|UnauthenticatedRelayClients|192.168.1.50|"
        "access|public|qplogsumm|disabled|status|enabled\n"
        "smtpd=service|MaxDateOffset|0|Proxy|blocked|tnef2mime|enabled\n"
        "sqpsmtpd=service|Bcc|disabled|TCPPort|465|access|public|status|enabled\n"
    )
    machine.records("# head\n# updated: then\n" + lines)
    before = {line.partition("=")[0]: line for line in lines.splitlines()}

    said, warnings = migrate(machine)

    assert warnings == []
    assert said == [
        "configuration: qpsmtpd RBLList: its entries are separated by commas now",
        "configuration: qpsmtpd RBLList: dnsbl.njabl.org is no longer run",
        "configuration: qpsmtpd SBLList: dsn.rfc-ignorant.org is no longer run",
        "configuration: qpsmtpd SBLList: no list was left, so it gets its default",
        "configuration: the domain of the envelope sender is always looked up",
        "configuration: qpsmtpd RBLList: was "
        "'zen.spamhaus.org:bl.spamcop.net:dnsbl.njabl.org', "
        "is now 'zen.spamhaus.org,bl.spamcop.net'",
        "configuration: qpsmtpd RequireResolvableFromHost: was 'no', is now absent",
        "configuration: qpsmtpd SBLList: was 'dsn.rfc-ignorant.org', "
        "is now 'dbl.spamhaus.org'",
    ]
    qpsmtpd = properties(machine)
    assert qpsmtpd["Instances"] == "40"
    assert qpsmtpd["DNSBL"] == "enabled"
    assert properties(machine, "sqpsmtpd")["status"] == "enabled"
    assert before["qmail"] in machine.read("home/e-smith/db/configuration").splitlines()
    assert "not so secret" not in " ".join(said)


# A site's own


def test_migration_of_the_site_runs_behind_the_shipped_ones(machine: Machine) -> None:
    machine.records("mine=service|Old|x\nqpsmtpd=service|RBLList|a.test:b.test\n")
    machine.write(
        f"{SITE}/05own.py",
        "def migrate(records, say):\n"
        '    record = records.find("mine")\n'
        '    if "Old" in record.properties:\n'
        '        record.properties["New"] = record.properties.pop("Old")\n'
        '        say(records.find("qpsmtpd").properties["RBLList"])\n'
        '    records.put("mine", record)\n',
    )

    said, _ = migrate(machine)

    assert properties(machine, "mine") == {"New": "x"}
    assert "configuration: a.test,b.test" in said
    assert "configuration: mine New: was absent, is now 'x'" in said
    assert not machine.path(f"{SITE}/__pycache__").exists()


def test_migrations_run_in_the_order_of_their_names(machine: Machine) -> None:
    for name in ("20b", "10a", "30c"):
        machine.write(f"{SITE}/{name}.py", f"def migrate(r, say):\n    say('{name}')\n")
    said: list[str] = []

    initialize("configuration", machine.paths, said.append, said.append)

    assert said == [f"configuration: {name}" for name in ("10a", "20b", "30c")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def migrate(records, say):\n    1 / 0\n", "2: ZeroDivisionError: division"),
        ("def migrate(\n", "1: SyntaxError: "),
        ("x = 1\n", "1: AttributeError: "),
        ("import sys\nsys.exit(3)\n", "2: SystemExit: 3"),
        (
            "from smeconf.database import Record\ndef migrate(records, say):\n"
            "    say('in vain')\n    records.put('a=b', Record(''))\n",
            "4: DatabaseError: configuration a=b: ",
        ),
    ],
)
def test_migration_that_fails_writes_nothing_and_is_one_line(
    machine: Machine, text: str, reason: str
) -> None:
    machine.records("qpsmtpd=service|RBLList|a.test:b.test\n")
    before = machine.facts("home/e-smith/db/configuration")
    path = machine.write(f"{SITE}/10bad.py", text)
    said: list[str] = []
    warnings: list[str] = []

    is_well = initialize("configuration", machine.paths, said.append, warnings.append)

    assert not is_well
    assert said == []
    assert len(warnings) == 1
    assert warnings[0].startswith(f"configuration: left as it was: {path}:{reason}")
    assert "\n" not in warnings[0]
    assert machine.facts("home/e-smith/db/configuration") == before


def test_migration_that_is_no_python_is_warned_of(machine: Machine) -> None:
    machine.write(f"{SITE}/10perl", "{ $DB->set_prop('a', 'b', 'c'); }\n")
    machine.write(f"{SITE}/.hidden.py", "1 / 0\n")
    warnings: list[str] = []

    assert initialize("configuration", machine.paths, warnings.append, warnings.append)

    assert warnings == [
        f"configuration: {machine.path(SITE)}: skipped, being no Python: 10perl"
    ]


def test_shipped_migrations_leave_no_bytecode(machine: Machine) -> None:
    migrate(machine)

    assert not (Path(shipped("db")) / "configuration/migrate/__pycache__").exists()
