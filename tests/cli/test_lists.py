"""listadd and listdel: one item of a comma list changes, the rest stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.config import Machine

RECORDS = (
    "# h\n# updated: then\n"
    "qpsmtpd=service|DNSServers|2001:db8::1, 192.0.2.1@5353"
    "|RBLList|b.test, a.test:Don't send,'c.test:No, thanks'\n"
    "site=service|Tags|one,a:1\n"
)
RBLLIST = "b.test,a.test:Don't send,"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.records(RECORDS)
    return machine


def value(machine: Machine, name: str, key: str = "qpsmtpd") -> str | None:
    record = machine.database().read().find(key)
    return record.properties.get(name) if record else None


def refused(machine: Machine, *words: str) -> str:
    """What is said of a change that is refused, and that it changed nothing."""
    result = machine.run("config", *words, check=False)

    assert (result.status, result.output) == (1, "")
    assert machine.read("home/e-smith/db/configuration") == RECORDS
    key, name = words[1:3]
    return result.errors.removeprefix(f"config: configuration {key} {name}: ")


def test_item_is_added_at_the_end_and_the_others_keep_their_order(
    machine: Machine,
) -> None:
    result = machine.run("config listadd qpsmtpd RBLList 0.test")

    assert (result.output, result.errors) == ("", "")
    assert value(machine, "RBLList") == f'{RBLLIST}"c.test:No, thanks",0.test'


@pytest.mark.parametrize(
    ("item", "stored"),
    [
        ("z.test:Don't send", "z.test:Don't send"),
        ('z.test:He said "no"', 'z.test:He said "no"'),
        ("z.test:Sorry, no", '"z.test:Sorry, no"'),
        ('z.test:Sorry, "no"', "'z.test:Sorry, \"no\"'"),
        ("z.test:a|b\\c=d", "z.test:a|b\\c=d"),
        ("z.test:see <http://x.test/%IP%>", "z.test:see <http://x.test/%IP%>"),
    ],
)
def test_item_is_quoted_only_where_it_must_be_and_can_be_taken_out_again(
    machine: Machine, item: str, stored: str
) -> None:
    machine.run("config", "listadd", "qpsmtpd", "RBLList", item)
    assert value(machine, "RBLList") == f'{RBLLIST}"c.test:No, thanks",{stored}'

    machine.run("config", "listdel", "qpsmtpd", "RBLList", item)
    assert value(machine, "RBLList") == f'{RBLLIST}"c.test:No, thanks"'


@pytest.mark.parametrize(
    ("item", "left"),
    [
        ("b.test", 'a.test:Don\'t send,"c.test:No, thanks"'),
        ("a.test", 'b.test,"c.test:No, thanks"'),  # by its zone
        ("a.test:Don't send", 'b.test,"c.test:No, thanks"'),
        ("c.test:No, thanks", "b.test,a.test:Don't send"),
        ("c.test", "b.test,a.test:Don't send"),
    ],
)
def test_item_is_taken_out_by_its_text_or_by_its_zone(
    machine: Machine, item: str, left: str
) -> None:
    machine.run("config", "listdel", "qpsmtpd", "RBLList", item)

    assert value(machine, "RBLList") == left


@pytest.mark.parametrize(
    ("item", "held"),
    [
        ("b.test", "b.test"),
        ("b.test:Another message", "b.test"),
        ("a.test", "a.test:Don't send"),
        ("a.test:Another message", "a.test:Don't send"),
    ],
)
def test_zone_that_is_in_the_list_is_refused_whatever_its_message(
    machine: Machine, item: str, held: str
) -> None:
    said = refused(machine, "listadd", "qpsmtpd", "RBLList", item)

    assert said == f"already holds {held}\n"


@pytest.mark.parametrize("item", ["d.test", "a.test:Another", "b.tes", ""])
def test_item_that_is_not_in_the_list_cannot_be_taken_out(
    machine: Machine, item: str
) -> None:
    said = refused(machine, "listdel", "qpsmtpd", "RBLList", item)

    assert said == f"does not hold {item}\n"


@pytest.mark.parametrize("item", ["", " ", "\t"])
def test_empty_item_is_refused(machine: Machine, item: str) -> None:
    said = refused(machine, "listadd", "qpsmtpd", "RBLList", item)

    assert said == "an item cannot be empty\n"


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("RBLList", "not/a/zone"),
        ("RBLList", "z.test\n"),
        ("UBLList", "multi.test:8-x"),
        ("DNSServers", "300.1.1.1"),
    ],
)
def test_item_that_the_schema_refuses_is_named(
    machine: Machine, name: str, item: str
) -> None:
    said = refused(machine, "listadd", "qpsmtpd", name, item)

    assert said.startswith(f"entry {item!r}; must be a comma list of ")
    assert said.endswith(" (--force stores it all the same)\n")


def test_item_that_cannot_be_quoted_is_named(machine: Machine) -> None:
    said = refused(machine, "listadd", "site", "Tags", "a, 'b' \"c\"")

    assert said.startswith("an entry cannot hold a comma and both kinds of quotes: ")
    assert repr("a, 'b' \"c\"") in said


def test_colons_of_what_is_no_zone_mean_nothing(machine: Machine) -> None:
    """Two IPv6 addresses of one network are two items."""
    machine.run("config listadd qpsmtpd DNSServers 2001:db8::2")
    machine.run("config listadd site Tags a:2")

    assert value(machine, "DNSServers") == "2001:db8::1,192.0.2.1@5353,2001:db8::2"
    assert value(machine, "Tags", "site") == "one,a:1,a:2"
    result = machine.run("config listdel qpsmtpd DNSServers 2001", check=False)
    assert result.status == 1


@pytest.mark.parametrize("is_there", [True, False])
def test_absent_list_begins_as_its_default(machine: Machine, is_there: bool) -> None:
    """The default is what is in force; adding to it must not switch it off."""
    if not is_there:
        machine.records("# h\n# updated: then\n")
    rule = machine.database().schema.find("qpsmtpd")
    assert rule
    default = rule.properties["SBLList"].default
    assert default

    machine.run("config listadd qpsmtpd SBLList z.test")
    assert value(machine, "SBLList") == f"{default},z.test"
    machine.run(f"config listdel qpsmtpd SBLList {default}")
    assert value(machine, "SBLList") == "z.test"


def test_list_of_which_the_last_item_is_taken_out_is_empty_not_the_default(
    machine: Machine,
) -> None:
    machine.run("config setprop qpsmtpd SBLList z.test")

    machine.run("config listdel qpsmtpd SBLList z.test")

    assert value(machine, "SBLList") == ""


def test_list_that_cannot_be_read_is_left_as_it_is(machine: Machine) -> None:
    text = RECORDS + 'zz=service|L|a,"open\n'
    machine.records(text)

    result = machine.run("config listadd zz L b", check=False)

    assert result.status == 1
    assert result.errors.startswith("config: configuration zz L: entry 2 opens a quote")
    assert machine.read("home/e-smith/db/configuration") == text


def test_list_of_a_key_that_nobody_knows_is_refused(machine: Machine) -> None:
    said = machine.run("config listadd qpsmtd RBLList z.test", check=False).errors

    assert "no such key; did you mean qpsmtpd?" in said


def test_lists_are_changed_in_a_batch_too(machine: Machine) -> None:
    machine.run(
        "config batch",
        stdin='listadd qpsmtpd RBLList "z.test:Don\'t, please"\n'
        "listdel qpsmtpd RBLList c.test\n",
    )

    assert value(machine, "RBLList") == f'{RBLLIST}"z.test:Don\'t, please"'
