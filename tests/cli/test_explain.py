"""smeconf explain: what a property drives, and what made a line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.config import Machine

TARGET = "etc/zones"
LAYER = f"templates-custom/…/{Path(TARGET).name}"
RECORDS = (
    "DomainName=example.test\n"
    "gate=service|Extra|stored|Password|hush|status|enabled\n"
    "qpsmtpd=service|DNSBL|enabled|RBLList|a.test,b.test\n"
)
FRAGMENT = """\
# zones
{% if qpsmtpd.DNSBL == "enabled" %}
{% for entry in qpsmtpd.RBLList | entries %}
{{ entry }}
{% endfor %}
{% endif %}
{% if qpsmtpd.SBLList == "none" %}
{{ gate.Other }}
{% endif %}
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.records(RECORDS)
    machine.records("a.test=domain|Description|first\nb.test=domain\n", "domains")
    machine.fragment(TARGET, "template-begin", "")
    machine.fragment(TARGET, "10zones", FRAGMENT)
    machine.fragment(TARGET, "20more", "p={{ gate.Password }}\n")
    machine.event("zones-update", [TARGET], services={"qpsmtpd": "reload"})
    return machine


def explain(machine: Machine, *words: str) -> str:
    return machine.run("smeconf", "explain", *words).output


def row(text: str, word: str) -> str:
    """What stands behind a word at the beginning of a line, blanks made one."""
    found = re.search(rf"^{word} +(.*)$", text, re.MULTILINE)
    assert found, text
    return " ".join(found[1].split())


def refused(machine: Machine, *words: str) -> str:
    result = machine.run("smeconf", "explain", *words, check=False)
    assert (result.status, result.output) == (1, "")
    assert result.errors.count("\n") == 1
    return result.errors.strip()


# A property


def test_value_default_kind_and_help(machine: Machine) -> None:
    text = explain(machine, "qpsmtpd", "RBLList")

    assert text.startswith("qpsmtpd RBLList\nvalue     a.test,b.test\n")
    assert row(text, "default").endswith("kind zones")
    assert row(text, "help").startswith("The IP block lists")
    assert all(len(line) <= 80 for line in re.findall("(?m)^(?:help| {10}).*", text))


def test_who_set_it_when_and_why(machine: Machine) -> None:
    machine.run(
        *("config", "--reason", "spam", "setprop", "qpsmtpd", "RBLList", "c.test"),
        env={"SUDO_USER": "ann"},
    )

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d UTC by ann( as \w+)?: spam, revision 1",
        row(explain(machine, "qpsmtpd", "RBLList"), "set"),
    )


def test_value_that_something_else_wrote_is_of_nobody(machine: Machine) -> None:
    machine.run("config setprop qpsmtpd RBLList c.test")
    path = machine.path("home/e-smith/db/configuration")
    path.write_text(path.read_text().replace("c.test", "d.test"))

    text = explain(machine, "qpsmtpd", "RBLList")

    assert row(text, "value") == "d.test"
    assert row(text, "set") == "(not in the history)"


def test_files_events_and_services_that_it_drives(machine: Machine) -> None:
    text = explain(machine, "qpsmtpd", "RBLList")

    driven = re.search(rf"(?m)^(?:drives|) +/{TARGET} +by (.*)$", text)
    assert driven
    assert driven[1] == f"{LAYER}/10zones:3"
    assert "zones-update (services: qpsmtpd)\n" in text
    assert row(text, "events") == "email-update (services: qpsmtpd)"


def test_branch_that_is_not_taken_counts(machine: Machine) -> None:
    assert f"{LAYER}/10zones:8" in explain(machine, "gate", "Other")


def test_default_is_in_force_where_nothing_is_stored(machine: Machine) -> None:
    text = explain(machine, "qpsmtpd", "TCPPort")

    assert row(text, "value") == "25 (the default)"
    assert "\nset " not in text


def test_single_value(machine: Machine) -> None:
    text = explain(machine, "DomainName")

    assert text.startswith("DomainName\nvalue     example.test\n")
    assert "/var/service/qpsmtpd/config/me " in text


def test_single_value_has_no_property(machine: Machine) -> None:
    assert "DomainName is a single value" in refused(machine, "DomainName", "x")


def test_property_of_another_database(machine: Machine) -> None:
    machine.fragment(
        TARGET, "30", "{% for k, r in domains.items() %}{{ r.Description or '' }}"
        "{% endfor %}\n",
    )  # fmt: skip

    text = explain(machine, "--database", "domains", "a.test", "Description")

    assert text.startswith("domains a.test Description\nvalue     first\n")
    assert f"by {LAYER}/30:1\n" in text


def test_property_that_nothing_reads(machine: Machine) -> None:
    assert row(explain(machine, "gate", "Extra"), "drives") == "no generated file"


def test_properties_of_a_record_in_short(machine: Machine) -> None:
    lines = explain(machine, "gate").splitlines()

    assert [line.split() for line in lines] == [
        ["Extra", "stored"],
        ["Other", "(not", "set)", f"/{TARGET}"],
        ["Password", "(secret)", f"/{TARGET}"],
        ["status", "enabled"],
    ]


def test_unknown_names_get_the_nearest(machine: Machine) -> None:
    assert refused(machine, "qpsmtpd", "RBLLst").endswith(
        "qpsmtpd RBLLst: there is no such property; did you mean RBLList?"
    )
    assert refused(machine, "qpsmtd").endswith("did you mean qpsmtpd?")


def test_secret_is_nowhere(machine: Machine) -> None:
    machine.run("config setprop gate Password newhush")
    machine.run("signal-event zones-update", check=False)

    texts = [
        explain(machine, *form, *words)
        for form in ((), ("--json",))
        for words in (["gate"], ["gate", "Password"], [TARGET], [f"{TARGET}:1"])
    ]

    assert [text for text in texts if "hush" in text] == []
    assert row(texts[1], "value") == "(secret)"


def test_broken_template_does_not_hide_the_others(machine: Machine) -> None:
    machine.fragment("etc/broken", "10", "{% if %}")
    machine.event("broken-update", ["etc/broken"])

    result = machine.run("smeconf explain qpsmtpd RBLList")

    assert "zones-update" in result.output
    assert "etc/broken/10:1: Expected an expression" in result.errors


def test_property_as_json(machine: Machine) -> None:
    machine.run("config --reason spam setprop qpsmtpd RBLList c.test")

    table = json.loads(explain(machine, "--json", "qpsmtpd", "RBLList"))

    assert (table["value"], table["is_set"], table["kind"]) == ("c.test", True, "zones")
    assert (table["set"]["reason"], table["set"]["revision"]) == ("spam", 1)
    (drives,) = (one for one in table["drives"] if one["path"] == f"/{TARGET}")
    assert drives["events"] == ["zones-update"]
    assert [one["line"] for one in drives["fragments"]] == [3]
    assert table["events"]["zones-update"] == {"qpsmtpd": ["reload"]}


# A file


def written(machine: Machine, text: str) -> None:
    machine.write(TARGET, text)


def test_every_line_of_a_file(machine: Machine) -> None:
    written(machine, machine.expand(TARGET))

    lines = explain(machine, TARGET).splitlines()

    assert [line.split(maxsplit=2) for line in lines] == [
        ["#", "zones", "10zones:1"],
        ["a.test", "10zones:4", "qpsmtpd{DNSBL}, qpsmtpd{RBLList}"],
        ["b.test", "10zones:4", "qpsmtpd{DNSBL}, qpsmtpd{RBLList}"],
        ["p=(secret)", "20more:1", "gate{Password}"],
    ]


def test_one_line_with_its_properties_and_who_set_them(machine: Machine) -> None:
    machine.run("config --reason spam setprop qpsmtpd RBLList c.test,d.test")
    written(machine, machine.expand(TARGET))

    text = explain(machine, f"{TARGET}:3")

    assert text.startswith(f"/{TARGET}:3\nline      d.test\n")
    assert row(text, "made by").endswith(f"{TARGET}/10zones:4")
    assert row(text, "from").startswith("qpsmtpd{DNSBL} enabled set (not in")
    assert row(text, r" +qpsmtpd\{RBLList\}").startswith("c.test,d.test set 20")
    assert text.endswith(": spam, revision 1\n")


def test_line_of_no_property(machine: Machine) -> None:
    written(machine, machine.expand(TARGET))

    assert row(explain(machine, f"{TARGET}:1"), "from").startswith("no property")


@pytest.mark.parametrize("form", ["{target}", "/{target}", "{root}/{target}"])
def test_forms_of_a_path(machine: Machine, form: str) -> None:
    path = form.format(target=TARGET, root=machine.root)

    assert explain(machine, f"{path}:2").startswith(f"/{TARGET}:2\nline      a.test\n")


def test_real_path_of_a_root_that_is_a_link(machine: Machine, tmp_path: Path) -> None:
    link = tmp_path.with_name(f"{tmp_path.name}-link")
    link.symlink_to(tmp_path)
    environment = {"SMECONF_ROOT": str(link)}

    for root in (link, tmp_path.resolve()):
        words = ("smeconf", "explain", f"{root}/{TARGET}:2")
        assert machine.run(*words, env=environment).output.startswith(f"/{TARGET}:2\n")


def test_line_is_counted_in_the_file_on_disk(machine: Machine) -> None:
    written(machine, "by hand\n" + machine.expand(TARGET))

    assert row(explain(machine, f"{TARGET}:3"), "made by").endswith("10zones:4")


@pytest.mark.parametrize(
    "text",
    ["# zones\nby hand\na.test\n", "# zones\nold.test\na.test\nb.test\np=hush\n"],
)
def test_line_that_no_template_makes(machine: Machine, text: str) -> None:
    written(machine, text)

    assert row(explain(machine, f"{TARGET}:2"), "made by") == (
        "no template: it was edited by hand, or the event has not run yet"
    )
    assert "holds something else" in explain(machine, TARGET)


def test_file_that_is_not_there_yet(machine: Machine) -> None:
    assert row(explain(machine, f"{TARGET}:2"), "line") == "a.test"


def test_line_behind_the_last(machine: Machine) -> None:
    written(machine, machine.expand(TARGET))

    assert "has 4 lines, no line 5" in refused(machine, f"{TARGET}:5")
    assert "no line 0" in refused(machine, f"{TARGET}:0")


def test_path_that_no_template_makes(machine: Machine) -> None:
    message = "/etc/passwd: no template makes this file"

    assert refused(machine, "/etc/passwd").endswith(message)
    assert refused(machine, "/etc/passwd:1").endswith(message)


def test_template_that_no_event_expands(machine: Machine) -> None:
    machine.fragment("etc/motd", "10", "hello {{ DomainName }}\n")

    assert "10:1" in explain(machine, "etc/motd")


def test_lines_as_json(machine: Machine) -> None:
    written(machine, machine.expand(TARGET))

    table = json.loads(explain(machine, "--json", TARGET))
    line = json.loads(explain(machine, "--json", f"{TARGET}:2"))

    assert table["is_as_made"] is True
    assert [one["text"] for one in table["lines"]][:2] == ["# zones", "a.test"]
    assert line == {"path": f"/{TARGET}", **table["lines"][1]}
    assert [one["property"] for one in line["properties"]] == ["DNSBL", "RBLList"]


def test_path_takes_no_property(machine: Machine) -> None:
    result = machine.run("smeconf", "explain", TARGET, "x", check=False)

    assert result.status == 2
    assert "takes no property" in result.errors
