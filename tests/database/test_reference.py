"""What a property drives, and the page and the help that tell of it."""

from __future__ import annotations

from pathlib import Path

import jinja2.nodes
import pytest

from smeconf.cli.reference import page
from smeconf.database import Record
from smeconf.database.compile import compile_tree, merge
from smeconf.database.schema import Schema
from smeconf.events import find_event
from smeconf.paths import Paths, shipped
from smeconf.templates import Expander, Layers, Snapshot
from tests.support.config import Machine

ROOT = Path(__file__).parents[2]
SCHEMA = compile_tree(shipped("db"))
TARGETS = find_event("email-update", Paths("/nowhere")).targets


def driven(target: str) -> set[tuple[str, str, str]]:
    """Return database, key and property of all that drive a target."""
    found = set()
    for database, tables in SCHEMA.items():
        for key, table in tables.items():
            entries = {name: one for name, one in table.items() if name != "drives"}
            for name, one in {"": table, **entries}.items():
                if isinstance(one, dict) and target in one.get("drives", ()):
                    found.add((database, key, name))
    return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One with defaults, a domain and a network."""
    machine = Machine(tmp_path)
    with machine.database("networks").transaction() as records:
        records.put("192.0.2.0", Record("network", {"Mask": "255.255.255.0"}))
    with machine.database("domains").transaction() as records:
        records.put("a.test", Record("domain"))
    return machine


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("switches", ["disabled", "enabled"])
def test_what_expanding_reads_is_said_to_drive_the_target(
    machine: Machine, target: str, switches: str
) -> None:
    table = SCHEMA["configuration"]["qpsmtpd"]
    names = [n for n in table if isinstance(table[n], dict)]
    flips = {n: switches for n in names if table[n].get("kind") == "switch"}
    with machine.database().transaction() as records:
        records.put("qpsmtpd", Record("service", flips))
    snapshot = Snapshot(machine.paths)

    Expander(Layers(machine.paths), snapshot).expand(target)

    read = set()
    for database, key, name in snapshot.reads:
        if key is not None and database == "configuration":
            read.add((database, key, name or ""))
        elif key is not None and name is not None:
            read.add((database, "types/" + database.removesuffix("s"), name))
    assert read - driven(target) == set()


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_said_to_drive_a_target_is_named_in_its_fragments(target: str) -> None:
    snapshot = Snapshot(Paths("/nowhere"))
    layers = Layers(Paths("/nowhere"))
    environment = Expander(layers, snapshot)._environment
    named = set()
    for fragment in layers.fragments(target):
        tree = environment.parse(Path(fragment.path).read_text(encoding="utf-8"))
        named |= {node.attr for node in tree.find_all(jinja2.nodes.Getattr)}
        named |= {node.name for node in tree.find_all(jinja2.nodes.Name)}

    for database, key, name in driven(target):
        # That there is a record drives what names the database.
        assert (name or (database if key.startswith("types/") else key)) in named


def test_property_drives_what_stands_on_its_fragments_template_too() -> None:
    config = "var/service/qpsmtpd/config"
    qpsmtpd = SCHEMA["configuration"]["qpsmtpd"]

    assert qpsmtpd["QueueMethod"]["drives"] == [
        f"{config}/peers/0",
        f"{config}/peers/local",
        "var/service/qpsmtpd/queue_logins",
    ]


def test_fragment_that_a_target_switches_off_drives_it_not() -> None:
    drives = SCHEMA["configuration"]["qpsmtpd"]["DNSBL"]["drives"]

    assert "var/service/qpsmtpd/config/peers/0" in drives
    assert "var/service/qpsmtpd/config/peers/local" not in drives


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_names_are_found_in_code_alone(tmp_path: Path) -> None:
    """Not in comments, texts and what a fragment puts out; subscripts count too."""
    write(
        tmp_path,
        {
            "db/configuration/k.toml": 'type = "s"\n'
            + "".join(f"[P{n}]\n" for n in "12345"),
            "db/configuration/Value.toml": 'kind = "text"\n',
            "db/things/types/thing.toml": 'type = "thing"\n[Size]\n[Mute]\n',
            "templates/a/10x": (
                "k.P1 Value {# k.P2 #}\n{{ 'k.P3' }}{{ k.P4 | default('') }}"
                '{% if k["P5"] %}x{% endif %}\n'
            ),
            "templates/b": "{% for t in things %}{{ things[t].Size }}{% endfor %}",
            "templates/c/10x": "{{ Value }}",
            "events/e/templates2expand/a": "",
            "events/e/templates2expand/b": "",
        },
    )

    schema = compile_tree(str(tmp_path / "db"))

    key = schema["configuration"]["k"]
    assert [name for name in key if "drives" in key[name]] == ["P4", "P5"]
    assert "drives" not in schema["configuration"]["Value"]  # c is in no event
    assert schema["things"]["types/thing"]["Size"] == {"drives": ["b"]}
    assert schema["things"]["types/thing"]["Mute"] == {}


def test_property_that_the_site_replaces_drives_what_it_drove() -> None:
    shipped_table = {"k": {"type": "s", "P": {"default": "1", "drives": ["a"]}}}

    merged = merge(shipped_table, {"k": {"P": {"kind": "flag"}}})

    assert merged == {"k": {"type": "s", "P": {"kind": "flag", "drives": ["a"]}}}


def test_property_tells_what_it_drives(tmp_path: Path) -> None:
    known = Schema.load("configuration", Paths(str(tmp_path))).find("qpsmtpd")

    assert known
    assert known.properties["RBLList"].drives == (
        "var/service/qpsmtpd/config/dnsbl_zones",
    )


# The page, and the help


def test_page_is_what_the_schema_gives() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs/properties.md").read_text(encoding="utf-8") == page()


def test_page_tells_of_every_property() -> None:
    text = page()

    for tables in SCHEMA.values():
        for key, table in tables.items():
            name = key.removeprefix("types/")
            assert f"  * [{name}](#" in text
            for property, one in table.items():
                if isinstance(one, dict) and property != "*":
                    assert f"#### {name} {property}\n" in text


def test_help_on_a_property_tells_all_that_is_known(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    zones = machine.run("config help qpsmtpd RBLList").output
    since = machine.run("config help qpsmtpd Workers").output
    old = machine.run("config help smtpd Authentication").output
    secret = machine.run("config help smtp-auth-proxy Passwd").output

    assert "    default: zen.spamhaus.org,bl.spamcop.net,psbl.surriel.com\n" in zones
    assert "    list: listadd and listdel change one entry\n" in zones
    assert "    drives: /var/service/qpsmtpd/config/dnsbl_zones\n" in zones
    assert "    since: smeconf 0.1\n" in since
    assert "    obsolete, use: qpsmtpd Authentication\n" in old
    assert "    default: none\n" in old
    assert "    secret: never shown in history and messages\n" in secret


def test_help_on_a_database_lists_types_of_records(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    domains = machine.run("db domains help").output
    typo = machine.run("db domains help domian", check=False)
    other = machine.run("db wbl help badhelo liar.example").output

    assert domains.startswith("domain           (records of this type) A domain whose")
    assert typo.errors.endswith("; did you mean domain?\n")
    assert "    accepts: one of Black\n" in other
