"""What made each line of a file: fragment, line and properties."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smeconf.templates import Expander, Expansion, Layers, Snapshot, TemplateError
from smeconf.templates.sources import LineGatherer, as_text, describe, lines_of
from tests.support.config import Machine

TARGET = "etc/motd"
RECORDS = (
    "Plain=some value\n"
    "mine=service|A|one|B|two|Empty||List|x,y|Multi|1\\n2|Off|no|Password|hush\n"
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.records(RECORDS)
    machine.records(
        "a.test=domain|On|1\nb.test=domain\nc.test=domain|On|3\n", "domains"
    )
    machine.fragment(TARGET, "template-begin", "")
    return machine


def expander(machine: Machine, *, trace: bool = True) -> Expander:
    return Expander(
        Layers(machine.paths), Snapshot(machine.paths), "some-event", trace=trace
    )


def traced(machine: Machine, *fragments: str) -> Expansion:
    for number, text in enumerate(fragments):
        machine.fragment(TARGET, f"{number}0", text)
    return expander(machine).expand(TARGET)


def lines(machine: Machine, *fragments: str) -> list[str]:
    """Each line as ``text | fragment:line … | properties``."""
    expansion = traced(machine, *fragments)
    texts = lines_of(expansion.text)
    assert len(texts) == len(expansion.lines)
    return [
        " | ".join(
            (
                text,
                " ".join(f"{Path(path).name}:{line}" for path, line in source.places),
                " ".join(sorted(map(describe, source.reads))).replace("mine", ""),
            )
        ).rstrip(" |")
        for text, source in zip(texts, expansion.lines, strict=True)
    ]


CASES = {
    "constant lines are of no property": (
        ["one\n\nthree\n"],
        ["one | 00:1", " | 00:2", "three | 00:3"],
    ),
    "a value is of its property": (
        ["{{ mine.A }}\n{{ Plain }} {{ mine['B'] }}\n"],
        ["one | 00:1 | {A}", "some value two | 00:2 | Plain {B}"],
    ),
    "a condition drives what is in it and nothing behind it": (
        ["{% if mine.A == 'one' %}\nin\n{% endif %}\nout\n"],
        ["in | 00:2 | {A}", "out | 00:4"],
    ),
    "a condition that does not hold drives nothing that follows": (
        ["{% if mine.Off == 'yes' %}\nin\n{% endif %}\nout {{ mine.B }}\n"],
        ["out two | 00:4 | {B}"],
    ),
    "the other branch is driven by every condition before it": (
        ["{% if mine.A == '' %}{% elif mine.B == '' %}{% else %}\nx\n{% endif %}"],
        ["x | 00:2 | {A} {B}"],
    ),
    "conditions in conditions": (
        ["{% if mine.A %}\n{% if mine.B %}\nx\n{% endif %}\ny\n{% endif %}\n"],
        ["x | 00:3 | {A} {B}", "y | 00:5 | {A}"],
    ),
    "what decides is what was read": (
        ["{{ mine.Empty or mine.A or mine.B }}\n{{ mine.A or mine.B }}\n"],
        ["one | 00:1 | {A} {Empty}", "one | 00:2 | {A}"],
    ),
    "a loop drives each of its lines": (
        ["{% for e in mine.List | entries %}\n-\n{{ e }}\n{% endfor %}\nend\n"],
        ["- | 00:2 | {List}", "x | 00:3 | {List}", "- | 00:2 | {List}",
         "y | 00:3 | {List}", "end | 00:5"],
    ),
    "an empty loop's other branch": (
        ["{% for e in mine.Empty | entries %}{% else %}\nnone\n{% endfor %}"],
        ["none | 00:2 | {Empty}"],
    ),
    "a line of a loop is of its own record": (
        ["{% for k, r in domains.items() %}\n{{ k }}{{ r.On or '' }}\n{% endfor %}"],
        ["a.test1 | 00:2 | domains (its keys) domains a.test{On}",
         "b.test | 00:2 | domains (its keys) domains b.test{On}",
         "c.test3 | 00:2 | domains (its keys) domains c.test{On}"],
    ),
    "a condition in a loop is of its own record": (
        ["{% for k in domains %}\n{% if domains[k].On %}\n{{ k }}\n{% endif %}\n"
         "{% endfor %}"],
        ["a.test | 00:3 | domains (its keys) domains a.test{On}",
         "c.test | 00:3 | domains (its keys) domains c.test{On}"],
    ),
    "a loop's own condition is of its own record": (
        ["{% for k, r in domains.items() if r.On %}\n{{ k }}\n{% endfor %}"],
        ["a.test | 00:2 | domains (its keys) domains a.test{On}",
         "c.test | 00:2 | domains (its keys) domains c.test{On}"],
    ),
    "a single value in a loop drives the lines that name it": (
        ["{% for e in [1] %}\na\n{{ Plain }}\n{% endfor %}"],
        ["a | 00:2", "some value | 00:3 | Plain"],
    ),
    "a value looked up in a database": (
        ["{{ configuration['Plain'] }}\n{{ domains | length }}\n"
         "{{ 'a.test' in domains }}\n"],
        ["some value | 00:1 | Plain", "3 | 00:2 | domains (its keys)",
         "True | 00:3 | domains a.test"],
    ),
    "a variable is of what it was set from": (
        ["{% set x = mine.A %}\n{% set y = x ~ Plain %}\n{{ x }}\n{{ y }}\nz\n"],
        ["one | 00:3 | {A}", "onesome value | 00:4 | Plain {A}", "z | 00:5"],
    ),
    "a variable of another fragment": (
        ["{% set x = mine.A %}", "{{ x }}\n"],
        ["one | 10:1 | {A}"],
    ),
    "a variable is of the condition it was set in": (
        ["{% set x = 1 %}{% if mine.A %}{% set x = 2 %}{% endif %}", "{{ x }}\n"],
        ["2 | 10:1 | {A}"],
    ),
    "a variable is of the condition that left it": (
        ["{% set x = 1 %}{% if mine.Empty %}{% set x = 2 %}{% endif %}", "{{ x }}\n"],
        ["1 | 10:1 | {Empty}"],
    ),
    "a list that was filled": (
        ["{% set l = [] %}{% do l.append(mine.A) %}{% do l.append(Plain) %}",
         "{{ l | join }}\n"],
        ["onesome value | 10:1 | Plain {A}"],
    ),
    "a namespace": (
        ["{% set n = namespace(x=1) %}{% set n.x = mine.A %}{{ n.x }}\n"],
        ["one | 00:1 | {A}"],
    ),
    "with": (
        ["{% with x = mine.A %}\n{{ x }}\ny\n{% endwith %}"],
        ["one | 00:2 | {A}", "y | 00:3"],
    ),
    "several lines of one value": (
        ["{{ mine.Multi | lines }}\nend\n"],
        ["1 | 00:1 | {Multi}", "2 | 00:1 | {Multi}", "end | 00:2"],
    ),
    "one line of several fragments": (
        ["a {{ mine.A }}", " b {{ mine.B }}", " c\nd"],
        ["a one b two c | 00:1 10:1 20:1 | {A} {B}", "d | 20:2"],
    ),
    "one line of several lines of a fragment": (
        ["a\n{%- if mine.A %} b{% endif %}\n\nc\n"],
        ["a b | 00:1 00:2 00:3 | {A}", "c | 00:4"],
    ),
    "an empty value is of its line": (
        ["<{{ mine.Empty }}>\n"],
        ["<> | 00:1 | {Empty}"],
    ),
    "comments and raw text": (
        ["{# a\nb #}\n{% raw %}\n{{ x }}\n{% endraw %}\ny\n"],
        [" | 00:3", "{{ x }} | 00:4", "y | 00:6"],
    ),
    "a macro is of the line that calls it": (
        ["{% macro m(x) %}\n{{ x }}{{ mine.B }}{% endmacro %}\n{{ m(mine.A) }}z\n"],
        ["onetwoz | 00:3 | {A} {B}"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_source_of_lines(machine: Machine, name: str) -> None:
    fragments, expected = CASES[name]

    assert lines(machine, *fragments) == expected


@pytest.mark.parametrize("name", CASES)
def test_traced_text_is_the_text(machine: Machine, name: str) -> None:
    fragments, _ = CASES[name]

    text = traced(machine, *fragments).text

    assert text == expander(machine, trace=False).expand(TARGET).text


def test_nothing_is_recorded_unless_asked(machine: Machine) -> None:
    machine.fragment(TARGET, "10", "{{ Plain }}\n")

    assert expander(machine, trace=False).expand(TARGET).lines == ()


def test_record_that_is_handed_in_is_a_source(machine: Machine) -> None:
    """As of a target that makes a file for each record."""
    machine.fragment(TARGET, "00", "{{ key }} {{ record.On }}\n")
    snapshot = Snapshot(machine.paths)
    record = snapshot.find("domains", "c.test")
    tracing = Expander(Layers(machine.paths), snapshot, trace=True)

    made = tracing.expand(TARGET, {"key": "c.test", "record": record})

    assert as_text(made) == "c.test 3  00:1  domains c.test{On}\n"


def test_traced_error_names_the_same_line(machine: Machine) -> None:
    with pytest.raises(TemplateError, match=r"/00:4: mine\{None\} does not exist"):
        traced(machine, "a\n{% if mine.A %}\nb\n{{ mine.None }}\n{% endif %}")


def test_trace_of_one_target_leaves_nothing_for_the_next(machine: Machine) -> None:
    machine.fragment("etc/first", "10", "{% set x = mine.A %}{{ x }}")
    machine.fragment(TARGET, "10", "{% for x in [1] %}{{ x }}{% endfor %}")
    tracing = expander(machine)
    tracing.expand("etc/first")

    (line,) = tracing.expand(TARGET).lines

    assert line.reads == frozenset()


# In words


def test_sources_in_columns(machine: Machine) -> None:
    expansion = traced(machine, "head\n{{ mine.A }}\n", "{{ Plain }} {{ mine.B }}\n")

    assert as_text(expansion) == (
        "head            00:1\n"
        "one             00:2  mine{A}\n"
        "some value two  10:1  Plain, mine{B}\n"
    )


def test_secret_is_not_shown(machine: Machine) -> None:
    machine.fragment(TARGET, "10", "p={{ mine.Password }}\n")
    snapshot = Snapshot(machine.paths)

    expansion = Expander(Layers(machine.paths), snapshot, trace=True).expand(TARGET)

    assert as_text(expansion, snapshot.secrets) == "p=(secret)  10:1  mine{Password}\n"


def test_single_value_with_a_secret_name_is_a_secret(machine: Machine) -> None:
    machine.records("AdminPassword=hush\n")
    snapshot = Snapshot(machine.paths)

    snapshot.find("configuration", "AdminPassword")

    assert snapshot.secrets == {"hush"}


def test_control_characters_are_not_shown(machine: Machine) -> None:
    expansion = traced(machine, "a\x1b[1mb\n")

    assert as_text(expansion) == "a\\x1b[1mb  00:1\n"


def test_fragments_of_two_directories_are_shown_by_their_paths(
    machine: Machine,
) -> None:
    machine.fragment("etc/base", "10", "base\n")
    machine.fragment(TARGET, "20", "own\n")
    machine.fragment(TARGET, "metadata.toml", 'template = "etc/base"\n')

    text = as_text(expander(machine).expand(TARGET))

    assert f"{machine.root}/etc/smeconf/templates-custom/etc/base/10:1" in text


# Lines


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("a\n", max_size=5), max_size=8))
def test_every_line_has_one_source(pieces: list[str]) -> None:
    gatherer = LineGatherer()
    for number, piece in enumerate(pieces, 1):
        gatherer.add(piece, ("fragment", number), frozenset())

    made = gatherer.finish()

    text = "".join(pieces)
    assert len(made) == len(lines_of(text))
    # Each line names just those pieces that a character of it came from.
    owners = [n for n, piece in enumerate(pieces, 1) for _ in piece]
    start = 0
    for source, line in zip(made, text.splitlines(keepends=True), strict=True):
        expected = dict.fromkeys(owners[start : start + len(line)])
        assert [number for _, number in source.places] == list(expected)
        start += len(line)
