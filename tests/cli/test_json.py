"""JSON out and in, and values of any size through standard input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smeconf.cli import db_json
from smeconf.cli.db import Call, Options
from smeconf.database import Database, DatabaseError, Record
from tests.support.config import Machine

RECORDS = (
    "# h\n# updated: then\n"
    "DomainName=example.com\n"
    "qpsmtpd=service|DNSBL|enabled|RBLList|a.test:x, y|odd|a\\|b\n"
    "zz=x|b|2|a|1\n"
)
DATABASE = "home/e-smith/db/configuration"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.records(RECORDS)
    return machine


def load(machine: Machine, words: str) -> Any:
    return json.loads(machine.run(words).output)


def stored(machine: Machine, key: str) -> str | None:
    return machine.database().read().find_raw(key)


ZZ = {"type": "x", "properties": {"a": "1", "b": "2"}}

# Out


def test_export_is_all_records(machine: Machine) -> None:
    assert load(machine, "config export") == {
        "DomainName": {"type": "example.com", "properties": {}},
        "qpsmtpd": {
            "type": "service",
            "properties": {"DNSBL": "enabled", "RBLList": "a.test:x, y", "odd": "a|b"},
        },
        "zz": ZZ,
    }


def test_export_of_an_empty_database_is_an_empty_object(tmp_path: Path) -> None:
    assert load(Machine(tmp_path), "config export") == {}


def test_verbs_with_json(machine: Machine) -> None:
    assert load(machine, "config --json keys") == ["DomainName", "qpsmtpd", "zz"]
    assert load(machine, "config --json show zz") == {"zz": ZZ}
    assert load(machine, "config --json print zz") == {"zz": ZZ}
    assert load(machine, "db configuration --json show zz") == {"zz": ZZ}
    everything = load(machine, "config export")
    assert load(machine, "config --json show") == everything
    assert load(machine, "config --json print") == everything


def test_json_of_what_is_missing_is_empty_and_status_1(machine: Machine) -> None:
    none = machine.run("config --json show none", check=False)
    machine.path(DATABASE).unlink()
    keys = machine.run("config --json keys", check=False)

    assert (none.status, json.loads(none.output), none.errors) == (1, {}, "")
    assert (keys.status, json.loads(keys.output), keys.errors) == (1, [], "")


def test_json_is_ascii_so_that_any_bytes_come_through(machine: Machine) -> None:
    machine.run("config", "setprop", "zz", "a", b"\xff\xc3\xbc")

    output = machine.run("config --json show zz", env={"LC_ALL": "C"}).output

    assert "\\udcff\\u00fc" in output
    assert json.loads(output)["zz"]["properties"]["a"] == "\udcff\u00fc"


# In


def test_import_sets_deletes_and_leaves_the_rest(machine: Machine) -> None:
    wanted = {
        "zz": None,
        "none": None,
        "new": {"type": "service", "properties": {"p": "1"}},
        "bare": {"type": ""},
        "qpsmtpd": {"type": "service", "properties": {"DNSBL": "disabled"}},
    }

    result = machine.run("config import", stdin=json.dumps(wanted))

    assert result.output.splitlines() == [
        "- zz=x",
        "+ new=service",
        "+ bare=",
        "~ qpsmtpd DNSBL: 'enabled' -> 'disabled'",
        "~ qpsmtpd RBLList: 'a.test:x, y' -> none",
        "~ qpsmtpd odd: 'a|b' -> none",
    ]
    assert machine.read(DATABASE).splitlines()[2:] == [
        "DomainName=example.com",
        "bare=",
        "new=service|p|1",
        "qpsmtpd=service|DNSBL|disabled",
    ]


def test_import_of_an_export_changes_nothing(machine: Machine) -> None:
    text = machine.run("config export").output

    result = machine.run("config import", stdin=text)

    assert (result.output, machine.read(DATABASE)) == ("", RECORDS)


def test_plan_of_an_import_touches_nothing(machine: Machine, tmp_path: Path) -> None:
    """Neither a lock nor a directory is made, even where there is nothing yet."""
    wanted = json.dumps({"zz": {"type": "y", "properties": ZZ["properties"]}})
    empty = Machine(tmp_path / "empty")
    empty.root.mkdir()
    before = {path: path.stat().st_mtime_ns for path in machine.root.rglob("*")}

    plan = machine.run("config --plan import", stdin=wanted, check=False)
    none = machine.run("config --plan import", stdin=json.dumps({"zz": ZZ}))
    of_nothing = empty.run("config --plan import", stdin=wanted, check=False)

    assert (plan.status, plan.output) == (2, "~ zz=x -> y\n")
    assert (none.status, none.output) == (0, "")
    assert (of_nothing.status, of_nothing.output) == (2, "+ zz=y\n")
    after = {path: path.stat().st_mtime_ns for path in machine.root.rglob("*")}
    assert after == before


@pytest.mark.parametrize("plan", [[], ["--plan"]])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ": standard input is no JSON: "),
        ("{", ": standard input is no JSON: "),
        ('{"k": {"type": "1"},}', ": standard input is no JSON: "),
        ("\udcff", ": standard input is no JSON: "),
        ("[" * 100000, ": standard input is no JSON"),
        ("[]", ": standard input is no object of records"),
        ("null", ": standard input is no object of records"),
        ('{"k": "x"}', " k: a record is "),
        ('{"k": []}', " k: a record is "),
        ('{"k": {}}', " k: a record is "),
        ('{"k": {"type": null}}', " k: a record is "),
        ('{"k": {"type": "x", "properties": []}}', " k: a record is "),
        ('{"k": {"type": "x", "properties": {"p": 1}}}', " k: a record is "),
        ('{"k": {"type": "x", "properties": {"p": null}}}', " k: a record is "),
        ('{"k": {"type": "x", "props": {}}}', " k: a record is "),
        ('{"": {"type": "x"}}', " : a key cannot be empty"),
        ('{"a=b": {"type": "x"}}', " a=b: key 'a=b': a key cannot hold an equals"),
        ('{"k": {"type": "x "}}', " k: type 'x ': a type cannot begin or end"),
        (
            '{"k": {"type": "x", "properties": {"a|b": "1"}}}',
            " k: property 'a|b': a property cannot hold a |",
        ),
        (
            '{"k": {"type": "x", "properties": {"p": "a\\\\"}}}',
            " k: property p: a backslash at the end",
        ),
        (
            '{"k": {"type": "x", "properties": {"p": "\\ud800"}}}',
            " k: property p: lone surrogates cannot be stored",
        ),
        (
            '{"k": {"type": "x", "properties": {"p": "\\udcc3\\udcbc"}}}',
            " k: property p: lone surrogates cannot be stored",
        ),
        ('{"k": {"type": "x", "properties": {"\\ud800": "1"}}}', " k: property "),
        ('{"k\\ud800": {"type": "x"}}', " k"),
        (
            '{"qpsmtpd": {"type": "service", "properties": {"status": "no"}}}',
            " qpsmtpd status: must be enabled or disabled, not 'no' (--force",
        ),
        ('{"qpsmtpd": {"type": "x"}}', " qpsmtpd: its type is service, not 'x'"),
        ('{"DomainName": {"type": "a/b"}}', " DomainName: must be a host or domain"),
    ],
)
def test_import_of_what_is_refused_names_it_and_changes_nothing(
    machine: Machine, text: str, reason: str, plan: list[str]
) -> None:
    if text.startswith("{") and text.endswith("}"):
        text = text.replace("{", '{"good": {"type": "1"}, ', 1)

    result = machine.run("config", *plan, "import", stdin=text, check=False)

    assert (result.status, result.output) == (1, "")
    assert result.errors.startswith(f"config: configuration{reason}")
    assert result.errors.count("\n") == 1
    assert machine.read(DATABASE) == RECORDS


def test_force_imports_what_the_schema_refuses(machine: Machine) -> None:
    wanted = {"DomainName": {"type": "a/b"}, "qpsmtpd": {"type": "x"}}

    machine.run("config --force import", stdin=json.dumps(wanted))

    assert (stored(machine, "DomainName"), stored(machine, "qpsmtpd")) == ("a/b", "x")


def test_reason_of_an_import_stands_in_the_history(machine: Machine) -> None:
    machine.run("config --reason moved import", stdin='{"k": {"type": "1"}}')

    assert machine.run("config history k").output.endswith("(moved)\n")


# Round trips

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
BYTES = st.binary(max_size=8).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
WORD = TEXT | BYTES | st.text("|=#\\n\n \t'\",", max_size=6)


def do(path: Path, act: Any, wanted: Any = None) -> list[str]:
    """Export or import in this process; return what is put out."""
    database = Database(str(path))
    call = Call("export", [], database, None, Options())  # type: ignore[arg-type]
    if wanted is None:
        act(call)
        return call.output
    records = {key: db_json._record(call, key, value) for key, value in wanted.items()}
    with database.transaction() as transaction:
        db_json._set_all(call, transaction, records)
    return call.output


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.dictionaries(WORD, st.tuples(WORD, st.dictionaries(WORD, WORD, max_size=4))))
def test_what_can_be_stored_is_the_same_after_export_and_import(
    tmp_path_factory: pytest.TempPathFactory,
    wanted: dict[str, tuple[str, dict[str, str]]],
) -> None:
    place = tmp_path_factory.mktemp("trip")
    records = {}
    with Database(str(place / "old")).transaction() as transaction:
        for key, (type, properties) in wanted.items():
            try:
                transaction.put(key, Record(type, properties))
            except DatabaseError:
                continue
            records[key] = Record(type, properties)

    text = "".join(do(place / "old", db_json.export_records)).encode()
    do(place / "new", None, json.loads(text))

    new = Database(str(place / "new")).read()
    assert {key: new.find(key) for key in new} == records
    old_lines = (place / "old").read_bytes().split(b"\n") if records else []
    new_lines = (place / "new").read_bytes().split(b"\n") if records else []
    assert old_lines[5:] == new_lines[5:]


# A megabyte


@pytest.mark.parametrize("quoted", ["'{}'", '"{}"', "{}"])
def test_megabyte_goes_through_standard_input(machine: Machine, quoted: str) -> None:
    """More than fits on a command line; and in a moment, whatever its quotes."""
    value = "list.test," * 100000 + "end"
    line = quoted.format(value)

    machine.run("config batch", stdin=f"setprop zz a {line}\nsetprop zz b 3\n")

    assert machine.run("config getprop zz a").output == value + "\n"
    assert stored(machine, "zz") == f"x|a|{value}|b|3"
    assert machine.run("config history zz b").status == 0
    machine.run("config rollback 0")
    assert stored(machine, "zz") == "x|a|1|b|2"


def test_megabyte_goes_through_import(machine: Machine) -> None:
    value = "ü'\"\\x|" * 200000
    wanted = {"zz": {"type": "x", "properties": {"a": value}}}

    machine.run("config import", stdin=json.dumps(wanted))

    assert load(machine, "config export")["zz"] == wanted["zz"]
