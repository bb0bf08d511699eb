"""Compiled fragments from the run before: the same text, or as if there were none."""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from smeconf.templates import Expander, Layers, Snapshot, TemplateError
from smeconf.templates import cache as cache_module
from smeconf.templates.cache import Cache
from tests.support.config import Machine

TARGET = "etc/motd"
BROKEN = "fine\n\n{% if Plain %}\n{{ mine.none }}\n{% endif %}\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "root")
    machine.records("Plain=some value\nmine=service|Name|jo\n")
    machine.fragment(TARGET, "template-begin", "")
    machine.fragment(TARGET, "10", "{{ Plain }}\n")
    return machine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "templates.cache"


def expand(machine: Machine, path: Path) -> tuple[str, list[str]]:
    """Expand as one run; return the text, and the fragments that were compiled."""
    cache = Cache.load(str(path))
    compiled = []
    add = cache.add

    def note(name: str, *rest: object) -> None:
        compiled.append(name)
        add(name, *rest)  # type: ignore[arg-type]

    cache.add = note  # type: ignore[method-assign]
    expander = Expander(Layers(machine.paths), Snapshot(machine.paths), "event", cache)
    try:
        return expander.expand(TARGET).text, compiled
    finally:
        cache.save()


def test_next_run_compiles_nothing(machine: Machine, path: Path) -> None:
    first = expand(machine, path)

    assert first == ("some value\n", ["10"])
    assert expand(machine, path) == ("some value\n", [])


def test_run_that_compiles_nothing_leaves_the_file_alone(
    machine: Machine, path: Path
) -> None:
    expand(machine, path)
    before = path.stat().st_ino

    expand(machine, path)

    assert path.stat().st_ino == before


def test_changed_fragment_is_compiled_anew(machine: Machine, path: Path) -> None:
    expand(machine, path)
    machine.fragment(TARGET, "10", "{{ mine.Name }}\n")

    assert expand(machine, path) == ("jo\n", ["10"])
    assert expand(machine, path) == ("jo\n", [])


def test_same_text_in_another_fragment_is_compiled_for_it(
    machine: Machine, path: Path
) -> None:
    """Its code holds the path, which errors name."""
    expand(machine, path)
    machine.fragment(TARGET, "20", "{{ Plain }}\n")

    assert expand(machine, path) == ("some value\n" * 2, ["20"])


def test_error_in_kept_code_names_the_same_line(machine: Machine, path: Path) -> None:
    fragment = machine.fragment(TARGET, "20", BROKEN)
    messages = []
    for _ in range(2):
        with pytest.raises(TemplateError) as caught:
            expand(machine, path)
        messages.append(str(caught.value))

    assert messages[0] == messages[1]
    assert messages[0].startswith(f"{fragment}:4: mine{{none}} does not exist")


def test_variables_and_do_work_in_kept_code(machine: Machine, path: Path) -> None:
    machine.fragment(TARGET, "10", "{% set x = [1] %}{% do x.append(2) %}")
    machine.fragment(TARGET, "20", "{{ x | join }}{{ EVENT }}\n")
    first, _ = expand(machine, path)

    assert expand(machine, path) == (first, []) == ("12event\n", [])


def test_file_is_for_its_owner_alone(machine: Machine, path: Path) -> None:
    expand(machine, path)

    assert path.stat().st_mode & 0o7777 == 0o600
    assert sorted(os.listdir(path.parent)) == ["root", "templates.cache"]


# What is not to be trusted is not there


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_version(path: Path) -> None:
    head, _, body = path.read_bytes().partition(b"\n")
    path.write_bytes(head.replace(b"templates 1 ", b"templates 0 ") + b"\n" + body)


def other_content(path: Path) -> None:
    body = marshal.dumps([1, 2])
    path.write_bytes(cache_module._head(body) + body)


def link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def group_may_write(path: Path) -> None:
    path.chmod(0o660)


def others_may_write(path: Path) -> None:
    path.chmod(0o602)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    "spoil",
    [
        truncate,
        flip,
        empty,
        other_version,
        other_content,
        link,
        group_may_write,
        others_may_write,
        fifo,
    ],
)
def test_what_is_unexpected_is_ignored_and_written_anew(
    machine: Machine, path: Path, spoil: Callable[[Path], None]
) -> None:
    expand(machine, path)
    spoil(path)

    assert expand(machine, path) == ("some value\n", ["10"])
    assert expand(machine, path) == ("some value\n", [])
    assert path.stat(follow_symlinks=False).st_mode == 0o100600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_of_a_stranger_is_ignored(machine: Machine, path: Path) -> None:
    expand(machine, path)
    os.chown(path, 12345, 12345)

    assert expand(machine, path) == ("some value\n", ["10"])


def test_entry_that_is_no_code_is_compiled(machine: Machine, path: Path) -> None:
    expand(machine, path)
    kept = {key: marshal.dumps("text") for key in cache_module._read(str(path))}
    cache_module._write(str(path), kept)

    assert expand(machine, path) == ("some value\n", ["10"])


def test_directory_that_is_not_there_is_no_fault(machine: Machine, path: Path) -> None:
    missing = path / "missing" / "cache"

    assert expand(machine, missing) == ("some value\n", ["10"])
    assert not missing.parent.exists()


def test_directory_in_the_place_of_the_file_is_no_fault(
    machine: Machine, path: Path
) -> None:
    path.mkdir()

    assert expand(machine, path) == ("some value\n", ["10"])
    assert sorted(os.listdir(path.parent)) == ["root", "templates.cache"]


# The bound


def test_what_was_not_used_goes_first(
    machine: Machine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_MOST_ENTRIES", 2)
    machine.fragment(TARGET, "20", "old\n")
    expand(machine, path)
    machine.fragment(TARGET, "20", "new\n")
    expand(machine, path)

    assert len(cache_module._read(str(path))) == 2
    assert expand(machine, path) == ("some value\nnew\n", [])
    machine.fragment(TARGET, "20", "old\n")
    assert expand(machine, path) == ("some value\nold\n", ["20"])


def test_what_was_not_used_stays_below_the_bound(machine: Machine, path: Path) -> None:
    machine.fragment(TARGET, "20", "old\n")
    expand(machine, path)
    machine.fragment(TARGET, "20", "new\n")
    expand(machine, path)
    machine.fragment(TARGET, "20", "old\n")

    assert expand(machine, path) == ("some value\nold\n", [])
