"""What is known of properties: kinds, defaults, the site's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.database import Record
from smeconf.database.compile import compile_database, compile_tree, write_module
from smeconf.database.migrate import initialize
from smeconf.database.schema import Key, Property, Schema, nearest
from smeconf.paths import Paths, shipped
from tests.support.config import Machine

SITE = "etc/smeconf/db/configuration"


def rule(kind: str, **words: object) -> Property:
    return Property({"kind": kind, "minimum": 3, "maximum": 5, **words})


@pytest.mark.parametrize(
    ("table", "value", "fault"),
    [
        ({"kind": "switch"}, "on", "must be enabled or disabled, not 'on'"),
        ({"values": ["a", "b"]}, "c", "must be one of a, b, not 'c'"),
        ({"kind": "integer"}, "x", "must be a whole number from 0, not 'x'"),
        (
            {"kind": "integer", "minimum": 1, "maximum": 9},
            "0",
            "must be a whole number from 1 to 9, not '0'",
        ),
        (
            {"kind": "addresses"},
            "::1,x",
            "entry 'x'; must be a comma list of IP addresses",
        ),
        ({"kind": "flag", "secret": True}, "hush", "must be 1 or 0"),
    ],
)
def test_fault_names_the_accepted_form(
    table: dict[str, object], value: str, fault: str
) -> None:
    assert Property(table).find_fault(value) == fault


def test_quote_at_fault_is_named_with_its_entry() -> None:
    fault = rule("zones").find_fault("a.test,'b.test")

    assert fault
    assert fault.startswith("entry 2 opens a quote (') and never closes it; must be ")


def test_empty_value_is_accepted_where_the_default_is_empty_or_it_is_optional() -> None:
    assert rule("domain", default="").find_fault("") is None
    assert rule("domain", optional=True).find_fault("") is None
    assert rule("domain", default="a", optional=False).find_fault("") is not None


def test_choice_closes_the_values() -> None:
    choice = Property({"values": ["a", "b"], "optional": True})

    assert choice.find_fault("a") is None
    assert choice.find_fault("") is None
    assert choice.find_fault("A") == "must be one of a, b, not 'A'"


def test_long_value_is_shown_in_part() -> None:
    fault = rule("switch").find_fault("x" * 1000)

    assert fault
    assert len(fault) < 120


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("RBLLst", "; did you mean RBLList?"),
        ("rbllist", "; did you mean RBLList?"),
        ("stauts", "; did you mean status?"),
        ("Quux", ""),
    ],
)
def test_nearest_name_is_offered(word: str, hint: str) -> None:
    assert nearest(word, ["RBLList", "status", "DNSBL"]) == hint


# The shipped schema


def test_compiled_schema_is_that_of_the_toml() -> None:
    compiled = pytest.importorskip("smeconf.database._compiled")

    assert compile_tree(shipped("db")) == compiled.SCHEMA


def test_module_that_is_written_holds_the_tables(tmp_path: Path) -> None:
    tables = {"configuration": {"k": {"type": "s", "P": {"default": "\u00e9'\"\n|"}}}}
    path = tmp_path / "module.py"

    write_module(tables, str(path))

    names: dict[str, object] = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    assert names["SCHEMA"] == tables


def test_every_shipped_default_is_accepted_by_its_own_kind() -> None:
    for tables in compile_tree(shipped("db")).values():
        for name, table in tables.items():
            known = Key(table)
            value = {"value": known.value} if known.value else {}
            for property, one in (known.properties | value).items():
                if one.default is not None:
                    assert one.find_fault(one.default) is None, (name, property)


def test_records_of_free_keys_are_known_by_their_type() -> None:
    schema = Schema.load("domains", Paths("/nowhere"))

    domain = schema.find("example.com", "domain")

    assert domain
    assert domain.type == "domain"
    assert schema.find("example.com") is None
    assert not schema.knows_key("example.com")
    assert schema.known_keys() == []


def test_database_that_nobody_knows_has_an_empty_schema(tmp_path: Path) -> None:
    schema = Schema.load("wbl", Paths(str(tmp_path)))

    assert schema.known_keys() == []


# The site's own files


def load(tmp_path: Path) -> Schema:
    return Schema.load("configuration", Paths(str(tmp_path)))


def test_site_adds_properties_to_a_shipped_key(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write(f"{SITE}/qpsmtpd.toml", '[Mine]\nkind = "flag"\ndefault = "1"\n')

    known = load(tmp_path).find("qpsmtpd")

    assert known
    assert known.type == "service"
    assert known.properties["Mine"].default == "1"
    assert known.properties["DNSBL"].kind == "switch"


def test_site_replaces_a_shipped_property(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write(f"{SITE}/qpsmtpd.toml", '[DNSBL]\nvalues = ["a", "b"]\n')

    known = load(tmp_path).find("qpsmtpd")

    assert known
    assert known.properties["DNSBL"].values == ("a", "b")
    assert known.properties["DNSBL"].default is None


def test_site_adds_keys_and_types(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write(f"{SITE}/mine.toml", 'type = "service"\n[P]\n')
    machine.write(f"{SITE}/types/thing.toml", 'type = "thing"\n[Q]\nkind = "flag"\n')

    schema = load(tmp_path)

    assert schema.knows_key("mine")
    thing = schema.find("any", "thing")
    assert thing
    assert list(thing.properties) == ["Q"]


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("x = ", "Invalid value"),
        (b"\xff = 1\n", "codec can't decode"),
        ("quux = 1\n", "quux is not a word of a schema"),
        ('type = "service"\ndefault = "x"\n', "default is not a word of a schema"),
        ("type = 5\n", "type"),
        ('[type]\nkind = "flag"\n', "type"),
        ("[P]\nkind = 5\n", "property P: kind is not known, or of a wrong type"),
        ('[P]\nkind = "colour"\n', "property P: kind must be one of switch, flag"),
        ("[P]\nvalues = [1, 2]\n", "property P: values"),
        ('[P]\ndefault = "x"\nkimd = "flag"\n', "property P: kimd is not known"),
        ('kind = "colour"\n', "the value: kind must be one of switch, flag"),
        ('minimum = "1"\n', "the value: minimum is not known, or of a wrong type"),
    ],
)
def test_bad_toml_is_one_line_that_names_the_file(
    tmp_path: Path, toml: str | bytes, reason: str
) -> None:
    machine = Machine(tmp_path)
    machine.run("config set smtpd service")
    path = machine.write(f"{SITE}/mine.toml", toml)

    for words in ("config setprop smtpd Greeting hello", "config help smtpd"):
        result = machine.run(words, check=False)

        assert (result.status, result.output) == (1, "")
        assert result.errors.startswith(f"config: {path}: ")
        assert reason in result.errors
        assert result.errors.count("\n") == 1


def test_file_that_is_no_toml_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.toml~").write_text("x = ")
    (tmp_path / "README").write_text("x = ")
    (tmp_path / "b.toml").write_text('type = "service"\n')

    assert compile_database(str(tmp_path)) == {"b": {"type": "service"}}


# Defaults


def test_defaults_fill_only_what_is_missing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.records(
        "# h\n# updated: then\nSystemName=gate\n"
        "other=1\nqpsmtpd=service|DNSBL|enabled|Mine|x|RBLList|\n"
    )

    assert initialize("configuration", machine.paths, print, print)

    records = machine.database().read()
    qpsmtpd = records.find("qpsmtpd")
    assert qpsmtpd
    assert records.find("SystemName") == Record("gate")
    assert records.find("DomainName") == Record("localdomain")
    assert records.find("other") == Record("1")
    assert qpsmtpd.properties["DNSBL"] == "enabled"
    assert qpsmtpd.properties["RBLList"] == ""
    assert qpsmtpd.properties["Mine"] == "x"
    assert qpsmtpd.properties["TCPPort"] == "25"


def test_defaults_that_are_there_are_no_write(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert initialize("configuration", machine.paths, print, print)
    before = machine.facts("home/e-smith/db/configuration")

    assert initialize("configuration", machine.paths, print, print)

    assert machine.facts("home/e-smith/db/configuration") == before


def test_defaults_of_the_site_are_given_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write(f"{SITE}/qpsmtpd.toml", '[Mine]\ndefault = "7"\n[Other]\n')

    assert initialize("configuration", machine.paths, print, print)

    qpsmtpd = machine.database().read().find("qpsmtpd")
    assert qpsmtpd
    assert qpsmtpd.properties["Mine"] == "7"
    assert "Other" not in qpsmtpd.properties
