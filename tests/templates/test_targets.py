"""Which files a target makes, and what they hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeconf.templates import (
    Expander,
    Expansion,
    Layers,
    Output,
    Snapshot,
    TargetError,
    outputs,
    text_of,
)
from smeconf.templates.metadata import Metadata
from smeconf.templates.targets import _output_path
from tests.support.config import Machine

TARGET = "etc/motd"
USERS = (
    "ann=user|EmailForward|both\nbob=user|EmailForward|local\nstaff=group|Members|x\n"
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with one template that has no banner."""
    machine = Machine(tmp_path)
    machine.fragment(TARGET, "template-begin", "")
    machine.fragment(TARGET, "10", "text\n")
    return machine


def metadata(machine: Machine, *lines: str, target: str = TARGET) -> str:
    return str(machine.fragment(target, "metadata.toml", "\n".join(lines) + "\n"))


def files(machine: Machine, target: str = TARGET) -> list[Output]:
    return outputs(target, Layers(machine.paths), Snapshot(machine.paths))


def texts(machine: Machine, target: str = TARGET) -> dict[str, str | None]:
    """Return path -> text."""
    layers, snapshot = Layers(machine.paths), Snapshot(machine.paths)
    expander = Expander(layers, snapshot)
    found = {}
    for output in outputs(target, layers, snapshot):
        expansion = text_of(output, expander, snapshot.secrets)
        found[output.path] = expansion.text if expansion else None
    return found


def fault(machine: Machine) -> str:
    with pytest.raises(TargetError) as caught:
        texts(machine)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_target_is_the_file_of_its_path(machine: Machine) -> None:
    (output,) = files(machine, "/etc/motd")

    assert output == Output(TARGET, TARGET, Metadata(), {})
    assert texts(machine) == {TARGET: "text\n"}


def test_output_names_another_file(machine: Machine) -> None:
    metadata(machine, 'output = "/srv/motd"')

    assert texts(machine) == {"srv/motd": "text\n"}


def test_delete_means_that_there_is_no_text(machine: Machine) -> None:
    metadata(machine, "delete = true")

    assert texts(machine) == {TARGET: None}


def test_file_that_is_to_go_needs_no_fragments(machine: Machine) -> None:
    metadata(machine, "delete = true", target="etc/gone")

    assert texts(machine, "etc/gone") == {"etc/gone": None}


# One file a record


def test_each_record_of_a_type_makes_a_file(machine: Machine) -> None:
    machine.records(USERS, "accounts")
    metadata(machine, 'each = "accounts/user"', 'output = "home/{key}/.forward.{key}"')
    machine.fragment(TARGET, "10", "{{ key }} {{ record.EmailForward }}\n")

    assert texts(machine) == {
        "home/ann/.forward.ann": "ann both\n",
        "home/bob/.forward.bob": "bob local\n",
    }


def test_no_record_makes_no_file(machine: Machine) -> None:
    metadata(machine, 'each = "accounts/user"', 'output = "home/{key}/.forward"')

    assert texts(machine) == {}


def test_each_file_may_be_one_that_is_to_go(machine: Machine) -> None:
    machine.records(USERS, "accounts")
    each = 'each = "accounts/user"', 'output = "home/{key}/.forward"'
    metadata(machine, *each, "delete = true")

    assert texts(machine) == {"home/ann/.forward": None, "home/bob/.forward": None}


def test_fragments_of_each_file_start_from_nothing(machine: Machine) -> None:
    """What a fragment sets for one record is not seen with the next."""
    machine.records(USERS, "accounts")
    metadata(machine, 'each = "accounts/user"', 'output = "home/{key}"')
    machine.fragment(TARGET, "10", "{{ seen | default('new') }}\n")
    machine.fragment(TARGET, "20", "{% set seen = key %}")

    assert texts(machine) == {"home/ann": "new\n", "home/bob": "new\n"}


@pytest.mark.parametrize("key", ["..", ".", "a/b", "/etc/shadow", "../../etc/shadow"])
def test_key_that_would_leave_its_directory_is_refused(
    machine: Machine, key: str
) -> None:
    machine.records(f"{key}=user|A|b\n", "accounts")
    metadata(machine, 'each = "accounts/user"', 'output = "home/{key}/.forward"')

    assert fault(machine) == (
        f"/etc/motd: the key {key!r} of accounts cannot be part of a path: "
        f"rename or delete the record"
    )


@pytest.mark.parametrize("key", ["", "a\0b"])
def test_key_that_names_no_file_is_refused(key: str) -> None:
    """The format of the databases holds no such key; nothing rests on that."""
    metadata = Metadata(each="accounts/user", output="home/{key}")

    with pytest.raises(TargetError, match="cannot be part of a path"):
        _output_path(TARGET, metadata, key)


@given(
    output=st.lists(st.sampled_from(["{key}", "a", "b", "/", "."]), min_size=1),
    keys=st.sets(st.text("ab.", min_size=1), min_size=2, max_size=6),
)
def test_two_records_never_make_one_path(output: list[str], keys: set[str]) -> None:
    metadata = Metadata(each="accounts/user", output="x" + "".join(output) + "/{key}")
    paths = []
    for key in keys:
        try:
            paths.append(_output_path(TARGET, metadata, key))
        except TargetError:
            continue

    assert len(set(paths)) == len(paths)
    assert all(".." not in path.split("/") for path in paths)


# Filters


@pytest.mark.parametrize(
    ("expression", "text", "filtered"),
    [
        ("line if line else none", "a\n\n\nb\n\n", "a\nb\n"),
        ("line if line else none", "\n", ""),
        ("line if line else none", "", ""),
        ("line", "a\n\nb", "a\n\nb"),
        ("line if line != 'b' else none", "a\nb", "a\n"),
        ("line | upper", "a\tb\n", "A\tB\n"),
        ("none if line.startswith('#') else line", "# a\nb #\n", "b #\n"),
        ("none", "a\nb\n", ""),
        ("line", "b\x0bc\u2028d\n", "b\x0bc\u2028d\n"),
        ("line ~ '\n' ~ line", "a\nb\n", "a\na\nb\nb\n"),
        ("'<' ~ line ~ '>'", "a\nb", "<a>\n<b>"),
    ],
)
def test_filter_replaces_or_drops_each_line(
    machine: Machine, expression: str, text: str, filtered: str
) -> None:
    metadata(machine, f"filter = '''{expression}'''")
    machine.fragment(TARGET, "10", text)

    assert texts(machine) == {TARGET: filtered}


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("line if", ""),
        ("line }} x", ""),
        ("lien", "'lien' is undefined, in the line 'text'"),
        ("line if none", "an if without an else gives nothing: add else none, in"),
        ("line + 1", "can only concatenate str"),
        ("line.nothing", "'str object' has no attribute 'nothing', in the line 'text'"),
        ("line.__class__", "access to attribute '__class__' of 'str' object is unsafe"),
        ("line == 'text'", "gives True, which is neither a text nor none"),
        ("line | length", "gives 4, which is neither a text nor none"),
        ("[line]", "gives ['text'], which is neither a text nor none"),
        ("line | nofilter", "No filter named 'nofilter'"),
    ],
)
def test_filter_that_fails_names_its_file_and_the_line(
    machine: Machine, expression: str, reason: str
) -> None:
    path = metadata(machine, f'filter = "{expression}"')

    said = fault(machine)

    assert said.startswith(f"{path}: filter: {reason}")


def test_filter_that_fails_on_a_secret_does_not_show_it(machine: Machine) -> None:
    machine.records("ldap=service|Password|it's a secret\n")
    metadata(machine, 'filter = "line | int(default=nothing)"')
    machine.fragment(TARGET, "10", "{{ ldap.Password }}\n")

    said = fault(machine)

    assert "a secret" not in said
    assert "(secret)" in said


@pytest.mark.parametrize(
    ("expression", "text", "lines"),
    [
        ("none if line == 'b' else line ~ '!'", "a!\nc!", [1, 3]),
        ("line ~ '\n-'", "a\n-\nb\n-\nc\n-", [1, 1, 2, 2, 3, 3]),
        ("'' if line == 'c' else line", "a\nb\n", [1, 2]),
        ("none", "", []),
    ],
)
def test_filter_keeps_the_source_of_each_line_that_is_left(
    machine: Machine, expression: str, text: str, lines: list[int]
) -> None:
    metadata(machine, f"filter = '''{expression}'''")
    machine.fragment(TARGET, "10", "a\nb\nc")
    layers, snapshot = Layers(machine.paths), Snapshot(machine.paths)
    (output,) = outputs(TARGET, layers, snapshot)

    expansion = text_of(output, Expander(layers, snapshot, trace=True))

    assert expansion
    assert expansion.text == text
    assert [source.line for source in expansion.lines] == lines


def test_filter_sees_every_file_of_a_target(machine: Machine) -> None:
    machine.records(USERS, "accounts")
    metadata(
        machine,
        'each = "accounts/user"',
        'output = "home/{key}"',
        'filter = "line | upper"',
    )
    machine.fragment(TARGET, "10", "{{ key }}\n")

    assert texts(machine) == {"home/ann": "ANN\n", "home/bob": "BOB\n"}


def test_text_is_an_expansion_of_the_target(machine: Machine) -> None:
    metadata(machine, 'output = "srv/motd"')
    layers, snapshot = Layers(machine.paths), Snapshot(machine.paths)
    (output,) = outputs(TARGET, layers, snapshot)

    expansion = text_of(output, Expander(layers, snapshot))

    assert isinstance(expansion, Expansion)
    assert expansion.target == TARGET
