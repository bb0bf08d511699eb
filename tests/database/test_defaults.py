"""Defaults and forced values in SME's form: a site's own files KEY/PROP."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.database import Database, Record
from smeconf.database.migrate import DATABASES, initialize, initialize_all
from tests.support.config import Machine

SITE = "etc/smeconf/db/configuration"


class Said:
    """What an initialization said, and whether all went well."""

    def __init__(self, machine: Machine, database: str = "configuration") -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.is_well = initialize(
            database, machine.paths, self.lines.append, self.warnings.append
        )


@pytest.fixture(autouse=True)
def _no_place_of_e_smith(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESMITH_DB_DEFAULTSDIR", raising=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def find(machine: Machine, key: str, database: str = "configuration") -> Record | None:
    return machine.database(database).read().find(key)


def get(machine: Machine, key: str, name: str) -> str | None:
    record = find(machine, key)
    return record.properties.get(name) if record else None


def test_default_of_the_site_goes_before_the_shipped_one(machine: Machine) -> None:
    machine.write(f"{SITE}/defaults/qpsmtpd/LogLevel", "7\n")

    assert Said(machine).is_well

    assert get(machine, "qpsmtpd", "LogLevel") == "7"
    assert get(machine, "qpsmtpd", "DNSBL") == "disabled"


def test_default_is_given_only_where_the_property_is_absent(machine: Machine) -> None:
    machine.records("mine=service|Empty||Set|here\n")
    for name in ("Empty", "Set", "Absent"):
        machine.write(f"{SITE}/defaults/mine/{name}", "given\n")

    said = Said(machine)

    assert find(machine, "mine") == Record(
        "service", {"Empty": "", "Set": "here", "Absent": "given"}
    )
    assert said.lines == []


def test_value_is_the_content_without_its_last_newline(machine: Machine) -> None:
    machine.write(f"{SITE}/defaults/mine/type", "service\n")
    machine.write(f"{SITE}/defaults/mine/A", "one\ntwo\n")
    machine.write(f"{SITE}/defaults/mine/B", "")
    machine.write(f"{SITE}/defaults/mine/C", "no newline")
    machine.write(f"{SITE}/defaults/mine/D", b"\xff\n")

    Said(machine)

    assert find(machine, "mine") == Record(
        "service", {"A": "one\ntwo", "B": "", "C": "no newline", "D": "\udcff"}
    )


def test_record_without_a_type_file_has_an_empty_type(machine: Machine) -> None:
    machine.write(f"{SITE}/defaults/mine/A", "x\n")

    Said(machine)

    assert find(machine, "mine") == Record("", {"A": "x"})


def test_type_of_a_record_that_is_there_stays(machine: Machine) -> None:
    machine.records("mine=old\nDomainName=a.test\n")
    machine.write(f"{SITE}/defaults/mine/type", "new\n")
    machine.write(f"{SITE}/defaults/DomainName/type", "b.test\n")
    machine.write(f"{SITE}/defaults/SystemName/type", "gate\n")

    Said(machine)

    assert find(machine, "mine") == Record("old")
    assert find(machine, "DomainName") == Record("a.test")
    assert find(machine, "SystemName") == Record("gate")


def test_hidden_entries_are_ignored_and_a_plain_file_is_warned_of(
    machine: Machine,
) -> None:
    stray = machine.write(f"{SITE}/defaults/stray", "x\n")
    machine.write(f"{SITE}/defaults/.hidden/A", "x\n")
    machine.write(f"{SITE}/defaults/mine/.hidden", "x\n")
    machine.write(f"{SITE}/defaults/mine/A", "x\n")

    said = Said(machine)

    assert said.is_well
    assert said.warnings == [
        f"configuration: {stray}: skipped: this is the place of directories KEY/PROP"
    ]
    assert find(machine, "mine") == Record("", {"A": "x"})
    assert find(machine, ".hidden") is None


def test_forced_value_holds_and_is_said_once(machine: Machine) -> None:
    machine.records("qpsmtpd=service|LogLevel|4\n")
    machine.write(f"{SITE}/force/qpsmtpd/LogLevel", "8\n")
    machine.write(f"{SITE}/force/qpsmtpd/Mine", "x\n")
    machine.write(f"{SITE}/defaults/qpsmtpd/LogLevel", "5\n")

    first, second = Said(machine), Said(machine)

    assert first.lines == [
        "configuration: qpsmtpd LogLevel: was '4', is now '8'",
        "configuration: qpsmtpd Mine: was absent, is now 'x'",
    ]
    assert second.lines == []
    assert get(machine, "qpsmtpd", "LogLevel") == "8"


def test_forced_single_value_and_new_record(machine: Machine) -> None:
    machine.records("DomainName=a.test\n")
    machine.write(f"{SITE}/force/DomainName/type", "b.test\n")
    machine.write(f"{SITE}/force/mine/type", "service\n")

    said = Said(machine)

    assert find(machine, "DomainName") == Record("b.test")
    assert find(machine, "mine") == Record("service")
    assert "configuration: DomainName: was 'a.test', is now 'b.test'" in said.lines


def test_forced_secret_is_not_shown(machine: Machine) -> None:
    machine.records("smtp-auth-proxy=service|Passwd|old\nmine=s|Password|old\n")
    machine.write(f"{SITE}/force/smtp-auth-proxy/Passwd", "hush\n")
    machine.write(f"{SITE}/force/mine/Password", "hush\n")

    said = Said(machine)

    assert get(machine, "smtp-auth-proxy", "Passwd") == "hush"
    assert said.lines == [
        "configuration: mine Password: changed (it is a secret)",
        "configuration: smtp-auth-proxy Passwd: changed (it is a secret)",
    ]


@pytest.mark.parametrize("step", ["defaults", "force"])
def test_value_that_the_schema_refuses_leaves_the_database_as_it_was(
    machine: Machine, step: str
) -> None:
    machine.records("qpsmtpd=service\n")
    before = machine.facts("home/e-smith/db/configuration")
    path = machine.write(f"{SITE}/{step}/qpsmtpd/DNSBL", "bananas\n")

    said = Said(machine)

    assert not said.is_well
    assert said.lines == []
    assert said.warnings == [
        f"configuration: left as it was: {path}: "
        "must be enabled or disabled, not 'bananas'"
    ]
    assert machine.facts("home/e-smith/db/configuration") == before


def test_second_run_writes_nothing(machine: Machine) -> None:
    machine.write(f"{SITE}/force/qpsmtpd/LogLevel", "8\n")
    machine.write(f"{SITE}/defaults/mine/A", "x\n")
    Said(machine)
    before = machine.facts("home/e-smith/db/configuration")

    Said(machine)

    assert machine.facts("home/e-smith/db/configuration") == before


def test_whole_initialization_is_one_revision(machine: Machine) -> None:
    machine.records("qpsmtpd=service|RequireResolvableFromHost|no\n")
    machine.write(f"{SITE}/force/qpsmtpd/LogLevel", "8\n")

    Said(machine)

    entries = Database.open("configuration", machine.paths).entries()
    assert {entry.revision for entry in entries} == {1}


def test_place_of_e_smith_replaces_the_sites(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write(f"{SITE}/defaults/mine/A", "x\n")
    machine.write("elsewhere/configuration/defaults/other/A", "x\n")
    monkeypatch.setenv("ESMITH_DB_DEFAULTSDIR", str(machine.path("elsewhere")))

    Said(machine)

    assert find(machine, "mine") is None
    assert find(machine, "other") == Record("", {"A": "x"})


def test_fault_of_one_database_leaves_the_others_their_turn(machine: Machine) -> None:
    machine.write(f"{SITE}/force/qpsmtpd/DNSBL", "bananas\n")
    for name in (*DATABASES[1:], "own"):
        machine.write(f"etc/smeconf/db/{name}/defaults/key/A", "x\n")
    machine.write("etc/smeconf/db/bad name/defaults/key/A", "x\n")
    warnings: list[str] = []

    is_well = initialize_all(machine.paths, warnings.append, warnings.append)

    assert not is_well
    assert len(warnings) == 1
    for name in (*DATABASES[1:], "own"):
        assert find(machine, "key", name) == Record("", {"A": "x"})
    assert not machine.path("home/e-smith/db/bad name").exists()


def test_init_says_what_changed_and_fails_where_a_database_did(
    machine: Machine,
) -> None:
    machine.write(f"{SITE}/force/qpsmtpd/LogLevel", "8\n")
    good = machine.run("smeconf init")
    path = machine.write(f"{SITE}/force/qpsmtpd/DNSBL", "bananas\n")
    bad = machine.run("smeconf init", check=False)

    first, _ = good.output.splitlines()  # the other is of the certificate
    assert first == "configuration: qpsmtpd LogLevel: was absent, is now '8'"
    assert bad.status == 1
    assert bad.errors.startswith(f"smeconf: configuration: left as it was: {path}: ")
    assert machine.read("var/service/qpsmtpd/config/loglevel").endswith("\n8\n")
