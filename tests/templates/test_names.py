"""Which reads a fragment could make, found without rendering it."""

from __future__ import annotations

from pathlib import Path

import pytest

from smeconf.templates import Expander, Layers, Snapshot, TemplateError
from smeconf.templates.sources import describe
from tests.support.config import Machine

TARGET = "etc/motd"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.fragment(TARGET, "template-begin", "")
    return machine


def names(machine: Machine, *fragments: str, **variables: object) -> list[str]:
    """Each mention as ``fragment:line property``."""
    for number, text in enumerate(fragments):
        machine.fragment(TARGET, f"{number}0", text)
    expander = Expander(Layers(machine.paths), Snapshot(machine.paths))
    return [
        f"{Path(one.fragment).name}:{one.line} {describe(one.read)}"
        for one in expander.mentions(TARGET, variables)
    ]


@pytest.mark.parametrize(
    ("fragment", "reads"),
    [
        ("no names", []),
        ("{{ qpsmtpd.RBLList }}", ["qpsmtpd{RBLList}"]),
        ('{{ qpsmtpd["RBLList"] }}', ["qpsmtpd{RBLList}"]),
        ("{{ qpsmtpd[x.y] }}", ["x{y}", "qpsmtpd{*}"]),
        ("{{ DomainName }}", ["DomainName"]),
        ("{{ DomainName | upper }}", ["DomainName"]),
        ("{{ a.B | default(c.D) }}", ["c{D}", "a{B}"]),
        ("{{ a.B or c.D ~ E }}", ["a{B}", "c{D}", "E"]),
        ("{{ a.B if c.D else e.F }}", ["c{D}", "a{B}", "e{F}"]),
        ("{% if a.B == 'x' %}{{ c.D }}{% elif e.F %}{% else %}{{ G }}{% endif %}",
         ["a{B}", "c{D}", "e{F}", "G"]),
        ("{{ domains.keys() | join }}", ["domains (its keys)"]),
        ("{{ domains | list }}", ["domains (its keys)"]),
        ("{% for d in domains %}{{ d }}{% endfor %}", ["domains (its keys)"]),
        ("{{ accounts.of_type('user') }}", ["accounts (its keys)"]),
        ('{{ domains["x"].Prop }}', ["domains x{Prop}"]),
        ("{{ domains[DomainName].Prop }}", ["DomainName", "domains *{Prop}"]),
        ("{{ configuration['qpsmtpd'].RBLList }}", ["qpsmtpd{RBLList}"]),
        ("{{ configuration['DomainName'] }}", ["DomainName"]),
        ("{% for k, r in domains.items() %}{{ k }}{{ r.Prop }}{% endfor %}",
         ["domains (its keys)", "domains *{Prop}"]),
        ("{% for k, r in domains.items() | sort if r.On %}{% endfor %}",
         ["domains (its keys)", "domains *{On}"]),
        ("{% for k in networks %}{% set n = networks[k] %}{{ n.Mask }}{% endfor %}",
         ["networks (its keys)", "networks *{Mask}"]),
        ("{% set q = qpsmtpd %}{{ q.RBLList }}", ["qpsmtpd{RBLList}"]),
        ("{% set x = a.B %}{{ x }}{{ x.y }}", ["a{B}"]),
        ("{% set x %}{{ a.B }}{% endset %}{{ x }}", ["a{B}"]),
        ("{% for x in a.B %}{{ x }}{{ loop.index }}{% endfor %}{{ x }}",
         ["a{B}", "x"]),
        ("{% with q = qpsmtpd, y = a.B %}{{ q.C }}{{ y }}{% endwith %}",
         ["a{B}", "qpsmtpd{C}"]),
        ("{% macro m(x, y=a.B) %}{{ x }}{{ c.D }}{% endmacro %}{{ m(e.F) }}",
         ["a{B}", "c{D}", "e{F}"]),
        ("{{ range(3) }}{{ namespace(x=a.B) }}{{ EVENT }}", ["a{B}"]),
        ("{% do [].append(a.B) %}", ["a{B}"]),
        ("{# a.B #}{% raw %}{{ a.B }}{% endraw %}{{ 'a.B' }}", []),
    ],
)  # fmt: skip
def test_names_in_a_fragment(machine: Machine, fragment: str, reads: list[str]) -> None:
    assert names(machine, fragment) == [f"00:1 {read}" for read in reads]


def test_each_read_has_the_line_of_its_first_mention(machine: Machine) -> None:
    assert names(machine, "x\n{% if a.B %}\n{{ c.D }}\n{{ a.B }}{% endif %}") == [
        "00:2 a{B}",
        "00:3 c{D}",
    ]


def test_names_set_in_a_fragment_are_no_reads_behind_it(machine: Machine) -> None:
    first = "{% set x = 1 %}{% set q = qpsmtpd %}{% macro m() %}{% endmacro %}"

    assert names(machine, first, "{{ x }}{{ q.DNSBL }}{{ m() }}{{ y }}") == [
        "10:1 qpsmtpd{DNSBL}",
        "10:1 y",
    ]


def test_record_that_is_handed_in_is_any_of_its_database(machine: Machine) -> None:
    machine.records("jo=user|Name|Jo\n", "accounts")
    record = Snapshot(machine.paths).find("accounts", "jo")

    found = names(machine, "{{ key }}{{ record.Name }}", key="jo", record=record)

    assert found == ["00:1 accounts *{Name}"]


def test_broken_fragment_is_named(machine: Machine) -> None:
    with pytest.raises(TemplateError, match="/00:2: Encountered unknown tag"):
        names(machine, "\n{% endfor %}")
