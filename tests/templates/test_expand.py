"""From database to text: strict, sandboxed, and no property becomes a directive."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.templates import Expander, Layers, Snapshot, TemplateError
from smeconf.templates.expand import _network_prefixes as prefixes
from tests.support.config import Machine

TARGET = "etc/motd"
RECORDS = (
    "Plain=some value\n"
    "mine=service|Empty||Multi|one\\ntwo|Name|a.test|Tab|a\tb|esc|\x1b[0m|nel|a\x85b\n"
    "qpsmtpd=service|DNSBL|enabled|RBLList|a.test:x, 'b.test:y, z'\n"
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.records(RECORDS)
    machine.records("a.test=domain|Description|first\nb.test=domain\n", "domains")
    machine.records("10.0.0.0=network|Mask|255.255.254.0\n", "networks")
    machine.records("jo=user\nhi=pseudonym|Account|jo\nal=user\n", "accounts")
    machine.fragment(TARGET, "template-begin", "")
    return machine


def expand(machine: Machine, *fragments: str) -> str:
    for number, text in enumerate(fragments):
        machine.fragment(TARGET, f"{number}0", text)
    return machine.expand(TARGET, "some-event")


def fault(machine: Machine, *fragments: str) -> str:
    with pytest.raises(TemplateError) as caught:
        expand(machine, *fragments)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(
        str(machine.path(f"etc/smeconf/templates-custom/{TARGET}")), ""
    )


# What a template sees


@pytest.mark.parametrize(
    ("fragment", "text"),
    [
        ("{{ Plain }}", "some value"),
        ("{{ mine.Name }}", "a.test"),
        ("{{ mine['Name'] }}", "a.test"),
        ("<{{ mine.Empty }}>", "<>"),
        ("{{ mine.Tab }}", "a\tb"),
        ("{{ qpsmtpd.DNSBL }}", "enabled"),
        ("{{ qpsmtpd.TCPPort }}", "25"),
        ("{{ DomainName }}", "localdomain"),
        ("{{ smtpd.Greeting or 'none' }}", "none"),
        ("{{ EVENT }}", "some-event"),
        ("{{ domains | list | join(' ') }}", "a.test b.test"),
        ("{{ domains['a.test'].Description }}", "first"),
        ("{{ domains | length }}", "2"),
        ("{{ 'a.test' in domains }} {{ 'c.test' in domains }}", "True False"),
        ("{{ accounts.of_type('user') | join(' ') }}", "al jo"),
        ("{% for k, r in accounts.items() %}{{ k }} {% endfor %}", "al hi jo "),
        ("{{ configuration['mine'].Name }}", "a.test"),
        ("{{ configuration['Plain'] }}", "some value"),
        ("{% for e in qpsmtpd.RBLList | entries %}{{ e }};{% endfor %}",
         "a.test:x;b.test:y, z;"),
        ("{{ mine.Multi | lines }}", "one\ntwo"),
    ],
)  # fmt: skip
def test_what_a_template_sees(machine: Machine, fragment: str, text: str) -> None:
    assert expand(machine, fragment) == text


def test_property_that_the_record_lacks_reads_as_its_default(tmp_path: Path) -> None:
    """As the schema has it; a stored empty value is no lack."""
    machine = Machine(tmp_path)
    machine.records("qpsmtpd=service|RBLList|\n")
    machine.fragment(TARGET, "template-begin", "")

    text = expand(machine, "{{ qpsmtpd.LogLevel }}<{{ qpsmtpd.RBLList }}>")

    assert text == "6<>"


def test_record_that_is_missing_reads_as_its_defaults(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.fragment(TARGET, "template-begin", "")

    assert expand(machine, "{{ qpsmtpd.status }} {{ SystemName }}") == "enabled mail"


def test_defaults_of_the_site_are_seen(machine: Machine) -> None:
    site = "etc/smeconf/db/configuration/qpsmtpd.toml"
    machine.write(site, '[Mine]\ndefault = "7"\n')

    assert expand(machine, "{{ qpsmtpd.Mine }}") == "7"


def test_databases_are_read_once_for_all_targets(machine: Machine) -> None:
    machine.fragment(TARGET, "10", "{{ Plain }}")
    expander = Expander(Layers(machine.paths), Snapshot(machine.paths))
    first = expander.expand(TARGET).text

    machine.records("Plain=other\n")

    assert expander.expand(TARGET).text == first == "some value"


def test_lines_of_statements_leave_no_blank_lines(machine: Machine) -> None:
    text = "{% if Plain %}\n  {# note #}\n{{ Plain }}\n{% endif %}\nend\n"

    assert expand(machine, text) == "some value\nend\n"


def test_variable_set_at_the_top_is_seen_by_later_fragments(machine: Machine) -> None:
    text = expand(
        machine,
        "{% set greeting = 'hi' %}{% set name = 'Jo' %}",
        "{% set list = [greeting] %}{% do list.append(name) %}",
        "{{ list | join(' ') }} {{ name }}",
    )

    assert text == "hi Jo Jo"


def test_variable_is_not_seen_by_another_target(machine: Machine) -> None:
    machine.fragment(TARGET, "10", "{% set word = 'hi' %}")
    machine.fragment("etc/other", "10", "{{ word }}")
    expander = Expander(Layers(machine.paths), Snapshot(machine.paths))
    expander.expand(TARGET)

    with pytest.raises(TemplateError, match="'word' is undefined"):
        expander.expand("etc/other")


def test_variable_hides_a_record_of_its_name(machine: Machine) -> None:
    assert expand(machine, "{% set Plain = 'own' %}", "{{ Plain }}") == "own"


def test_variables_that_are_handed_in_are_seen(machine: Machine) -> None:
    machine.fragment(TARGET, "10", "{{ key }} {{ EVENT }} {{ Plain }}")
    snapshot = Snapshot(machine.paths)
    expander = Expander(Layers(machine.paths), snapshot, "some-event")

    text = expander.expand(TARGET, {"key": "jo", "Plain": "own"}).text

    assert text == "jo some-event own"


def test_variables_that_are_handed_in_are_of_one_target(machine: Machine) -> None:
    machine.fragment(TARGET, "10", "{{ key or 'none' }}")
    expander = Expander(Layers(machine.paths), Snapshot(machine.paths))
    variables = {"key": "jo"}

    texts = [expander.expand(TARGET, given).text for given in (variables, None)]

    assert texts == ["jo", "none"]
    assert variables == {"key": "jo"}


def test_fragment_may_hold_any_text(machine: Machine) -> None:
    assert expand(machine, "gr\u00fc\u00dfe $x @y %z {a} \\n\n\n") == (
        "gr\u00fc\u00dfe $x @y %z {a} \\n\n\n"
    )


# Strict


@pytest.mark.parametrize(
    ("fragment", "line", "reason"),
    [
        (
            "ok\n{{ qpsmtpd.RBLLst }}\n",
            2,
            "qpsmtpd{RBLLst} does not exist; did you mean RBLList?",
        ),
        ("\n\n{{ mine.nam }}", 3, "mine{nam} does not exist; did you mean Name?"),
        ("{{ Plian }}", 1, "'Plian' is undefined"),
        ("{{ domains['c.test'].Description }}", 1, "domains has no record c.test"),
        (
            "{{ configuration['qpsmtd'] }}",
            1,
            "configuration has no record qpsmtd; did you mean qpsmtpd?",
        ),
        ("a\n{{ smtpd.Greeting }}", 2, "smtpd{Greeting} is not set and has no default"),
        ("{% for x in mine.none %}{% endfor %}", 1, "mine{none} does not exist"),
        ("{{ mine.none ~ 'x' }}", 1, "mine{none} does not exist"),
        ("{{ mine.none | upper }}", 1, "mine{none} does not exist"),
        ("x\n{% if mine.none == 'a' %}{% endif %}", 2, "mine{none} does not exist"),
        ("{{ mine }}", 1, "mine is a record: name one of its properties"),
        ("a\n\n{% if %}", 3, "Expected an expression"),
        ("a\n{% endfor %}\n", 2, "Encountered unknown tag 'endfor'"),
        ("{{ 'x' | quux }}", 1, "No filter named 'quux'"),
        ("{{ 1 / 0 }}", 1, "ZeroDivisionError: division by zero"),
        ("{{ mine.Name() }}", 1, "TypeError: "),
        ('{{ qpsmtpd.RBLList ~ "\'" | entries }}', 1, "entry 1 opens a quote"),
        ("{% include 'x' %}", 1, "TypeError: "),
        ("{{ '10.0.0.0' | prefixes('wide') }}", 1, "'10.0.0.0/wide' does not appear"),
    ],
)
def test_error_names_fragment_line_and_reason(
    machine: Machine, fragment: str, line: int, reason: str
) -> None:
    assert fault(machine, "fine\n", fragment).startswith(f"/10:{line}: {reason}")


@pytest.mark.parametrize(
    "fragment",
    [
        "{% if mine.none %}x{% endif %}",
        "{% if not mine.none %}{% endif %}",
        "{{ mine.none or '' }}",
        "{{ mine.none | default('') }}",
        "{% if mine.none is defined %}x{% endif %}",
        "{{ None_such or '' }}",
        "{% if mine.none and mine.none.deeper %}x{% endif %}",
    ],
)
def test_what_is_undefined_may_be_tested(machine: Machine, fragment: str) -> None:
    assert expand(machine, fragment) == ""


def test_fragment_that_is_no_text_is_named(machine: Machine) -> None:
    machine.write(f"etc/smeconf/templates-custom/{TARGET}/10", b"\xff")

    with pytest.raises(TemplateError, match=r"/10:1: .*can't decode byte 0xff"):
        machine.expand(TARGET)


def test_broken_schema_of_the_site_is_an_error_with_its_file(machine: Machine) -> None:
    path = machine.write("etc/smeconf/db/configuration/x.toml", "x = ")

    assert f"{path}: Invalid value" in fault(machine, "{{ Plain }}")


def test_database_that_cannot_be_read_is_an_error(machine: Machine) -> None:
    machine.path("home/e-smith/db/hosts").mkdir()

    assert "cannot be read: Is a directory" in fault(machine, "{{ hosts | length }}")


# A property never becomes a directive


@pytest.mark.parametrize("name", ["Multi", "esc", "nel"])
@pytest.mark.parametrize(
    "form", ["{{ mine.%s }}", "{{ 'x' ~ mine.%s }}", "{{ mine.%s | replace('x', '') }}"]
)
def test_control_character_in_a_value_is_refused(
    machine: Machine, name: str, form: str
) -> None:
    message = fault(machine, "{{ Plain }}", form % name)

    assert message.startswith("/10:1: the value holds a control character, '")
    assert message.endswith(f"(last read: mine{{{name}}})")


@given(st.text(st.characters(categories=["Cc"], exclude_characters="\t"), min_size=1))
def test_no_control_character_gets_through(characters: str) -> None:
    from smeconf.templates.expand import _finalize

    with pytest.raises(ValueError, match="control character"):
        _finalize("a" + characters)


# The sandbox


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__",
        "''.__class__.__mro__",
        "''['__class__']",
        "'' | attr('__class__')",
        "mine.__class__",
        "mine | attr('__class__')",
        "mine | attr('_snapshot')",
        "mine | attr('record')",
        "mine.record",
        "mine.find",
        "domains.__init__",
        "domains._snapshot",
        "domains | attr('_snapshot')",
        "domains.keys.__func__",
        "domains.keys.__globals__",
        "cycler.__init__.__globals__",
        "self._TemplateReference__context",
        "'{0.__class__}'.format(domains)",
        "'{0._snapshot}'.format(domains)",
        "[mine] | map(attribute='__class__') | first",
        "range(10000000) | list | length",
    ],
)
def test_template_cannot_reach_behind_the_data(
    machine: Machine, expression: str
) -> None:
    assert fault(machine, f"{{{{ {expression} }}}}").startswith("/00:1: ")


# Filters


@pytest.mark.parametrize(
    ("address", "mask", "lines"),
    [
        ("10.0.0.0", "255.0.0.0", ["10."]),
        ("192.168.2.0", "255.255.255.0", ["192.168.2."]),
        ("192.168.2.0", "255.255.254.0", ["192.168.2.", "192.168.3."]),
        ("192.168.3.7", "255.255.254.0", ["192.168.2.", "192.168.3."]),
        ("172.16.0.0", "255.252.0.0", [f"172.{n}." for n in range(16, 20)]),
        ("192.0.2.8", "255.255.255.252", [f"192.0.2.{n}" for n in range(8, 12)]),
        ("192.0.2.1", "255.255.255.255", ["192.0.2.1"]),
        ("0.0.0.0", "0.0.0.0", ["0.0.0.0/0"]),
        ("2001:db8::", "32", ["2001:db8::/32"]),
    ],
)
def test_prefixes_cover_a_network_and_nothing_else(
    address: str, mask: str, lines: list[str]
) -> None:
    assert prefixes(address, mask) == lines


def test_prefixes_of_the_databases_networks(machine: Machine) -> None:
    text = (
        "{% for n in networks %}{% for p in n | prefixes(networks[n].Mask) %}"
        "{{ p }}\n{% endfor %}{% endfor %}"
    )

    assert expand(machine, text) == "10.0.0.\n10.0.1.\n"


# What is noted


def test_reads_are_noted_with_database_key_and_property(machine: Machine) -> None:
    machine.fragment(
        TARGET, "10", "{{ Plain }}{{ mine.Name }}{{ smtpd.Greeting or 1 }}"
    )
    machine.fragment(TARGET, "20", "{{ domains['a.test'].Description }}")
    snapshot = Snapshot(machine.paths)

    Expander(Layers(machine.paths), snapshot).expand(TARGET)

    assert snapshot.reads == {
        ("configuration", "Plain", None),
        ("configuration", "mine", "Name"),
        ("configuration", "smtpd", "Greeting"),
        ("domains", "a.test", "Description"),
    }
