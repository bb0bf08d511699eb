"""Every part of a feature is there: what one forgets is named by a test that fails.

A plugin's docstring ties its parts together: the blocks Hook, Files and From.
"""

from __future__ import annotations

import ast
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import jinja2.nodes
import pytest

from smeconf.database.compile import compile_tree
from smeconf.events import find_event
from smeconf.paths import Paths, shipped
from smeconf.templates import Layers
from smeconf.templates.expand import Expander
from smeconf.templates.records import Snapshot

ROOT = Path(__file__).parents[1]
PLUGINS = ROOT / "smeconf/smtpd/plugins"
CONFIG = "var/service/qpsmtpd/config"
TEMPLATES = Path(shipped("templates"))
SCHEMA = compile_tree(shipped("db"))

names = sorted(
    str(path.relative_to(PLUGINS).with_suffix(""))
    for path in PLUGINS.rglob("*.py")
    if path.name != "__init__.py"
)
every_plugin = pytest.mark.parametrize("plugin", names)


def source(plugin: str) -> ast.Module:
    return ast.parse((PLUGINS / f"{plugin}.py").read_text(encoding="utf-8"))


def docstring(plugin: str) -> str:
    return ast.get_docstring(source(plugin)) or ""


def block(plugin: str, title: str) -> list[str]:
    """Return the entries of a block of the docstring: ``Files``, ``From`` and so on.

    An entry begins where the block's first does; what is further in goes on with it.
    """
    entries: list[str] = []
    indent = -1
    for line in docstring(plugin).splitlines():
        if match := re.match(rf"{title}s?\s+(?=\S)", line):
            indent = match.end()
            entries.append(line[indent:])
        elif indent >= 0 and line[:indent].strip():
            break
        elif indent >= 0 and line[indent : indent + 1].strip():
            entries.append(line[indent:])
        elif indent >= 0 and not line.strip():
            break
    return entries


def hooks(plugin: str) -> set[str]:
    return set(re.findall(r"\w+", " ".join(block(plugin, "Hook"))))


def files(plugin: str) -> list[str]:
    return [entry.split()[0] for entry in block(plugin, "File")]


def properties(plugin: str) -> Iterator[tuple[str, str]]:
    """Return the pairs key, property of the block From."""
    for entry in block(plugin, "From"):
        for key, _, name in re.findall(r"(\w+)(\{…\})?\{(\w+)\}", entry):
            yield key, name


@functools.cache
def names_read(fragment: Path) -> frozenset[str]:
    """Return every property that a fragment names, in a branch taken or not."""
    expander = Expander(Layers(Paths("/")), Snapshot(Paths("/")))
    tree = expander._environment.parse(fragment.read_text(encoding="utf-8"))
    return frozenset(node.attr for node in tree.find_all(jinja2.nodes.Getattr))


def fragments(target: str) -> list[Path]:
    place = TEMPLATES / CONFIG / target
    return sorted(path for path in place.glob("*") if path.name != "metadata.toml")


@every_plugin
def test_docstring_opens_with_the_plugins_name_and_what_it_does(plugin: str) -> None:
    first = docstring(plugin).split("\n")[0].replace("-", "_")

    assert first.startswith(f"{plugin}: ".replace("-", "_"))
    assert first.endswith((".", ";", ","))


@every_plugin
def test_docstring_names_every_hook_and_no_other(plugin: str) -> None:
    defined = {
        node.name.removeprefix("hook_")
        for node in ast.walk(source(plugin))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("hook_")
    }

    assert hooks(plugin) == defined
    assert defined


@every_plugin
def test_every_property_behind_a_plugin_is_in_the_schema(plugin: str) -> None:
    unknown = []
    for key, name in properties(plugin):
        tables = SCHEMA["configuration"]
        if key in SCHEMA:  # networks{…}{RelayRequiresAuth}: of all records of a type
            known = any(name in table for table in SCHEMA[key].values())
        else:
            known = name in tables.get(key, {})
        if not known:
            unknown.append(f"{key}{{{name}}}")

    assert unknown == []


@every_plugin
def test_every_property_behind_a_plugin_is_read_by_a_template_of_it(
    plugin: str,
) -> None:
    """Of its fragment in the plugin list, or of one of its files."""
    own = [path for path in fragments("plugins") if belongs(path, plugin)]
    own += [path for file in files(plugin) for path in fragments(file)]

    read = frozenset().union(*map(names_read, own))

    assert [name for _, name in properties(plugin) if name not in read] == []


@every_plugin
def test_plugin_with_properties_and_files_has_a_template_for_its_first_file(
    plugin: str,
) -> None:
    if files(plugin) and list(properties(plugin)):
        assert (TEMPLATES / CONFIG / files(plugin)[0]).is_dir()


@every_plugin
def test_files_that_a_plugin_reads_are_in_its_docstring(plugin: str) -> None:
    read = {
        node.args[0].value
        for node in ast.walk(source(plugin))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "lines"
        and isinstance(node.args[0], ast.Constant)
    }

    assert read - set(files(plugin)) == set()


def belongs(fragment: Path, plugin: str) -> bool:
    if plugin.startswith("queue/"):
        return fragment.name == "90queue"
    return fragment.name.lstrip("0123456789") == plugin.rpartition("/")[2]


@every_plugin
def test_every_plugin_has_a_fragment_in_the_plugin_list(plugin: str) -> None:
    own = [path for path in fragments("plugins") if belongs(path, plugin)]

    assert len(own) == 1, f"{plugin}: no fragment below {CONFIG}/plugins"


def test_every_queue_can_be_chosen_and_every_choice_is_a_queue() -> None:
    methods = SCHEMA["configuration"]["qpsmtpd"]["QueueMethod"]["values"]
    queues = [name.removeprefix("queue/") for name in names if "queue/" in name]

    assert sorted(methods) == sorted(name.replace("_", "-") for name in queues)


@every_plugin
def test_every_plugin_has_a_test(plugin: str) -> None:
    folder, _, name = plugin.rpartition("/")

    assert (ROOT / "tests/smtpd/plugins" / folder / f"test_{name}.py").is_file()


def targets() -> list[str]:
    return list(find_event("email-update", Paths("/nowhere")).targets)


@pytest.mark.parametrize("target", targets())
def test_every_target_of_email_update_has_a_template(target: str) -> None:
    assert Layers(Paths("/nowhere")).fragments(target)


def test_every_template_of_the_filter_is_a_target_of_email_update() -> None:
    """But for the plugin list, which peers/0 and peers/local stand on."""
    templates = {
        os.path.relpath(directory, TEMPLATES)
        for directory, _, files in os.walk(TEMPLATES / CONFIG)
        if files and directory != str(TEMPLATES / CONFIG)
    }

    assert templates - set(targets()) == {f"{CONFIG}/plugins"}


@pytest.mark.parametrize("peers", ["peers/0", "peers/local"])
def test_fragment_that_switches_off_names_one_that_is_there(peers: str) -> None:
    listed = {path.name for path in fragments("plugins")}

    off = {path.name for path in fragments(peers) if not path.stat().st_size}

    assert off - listed == set()


def test_every_key_and_property_of_the_schema_has_a_help() -> None:
    mute = []
    for database, tables in SCHEMA.items():
        for key, table in tables.items():
            entries = {n: e for n, e in table.items() if isinstance(e, dict)}
            for name, entry in {"": table, **entries}.items():
                if not entry.get("help", "").strip().endswith((".", ")")):
                    mute.append(f"{database}/{key} {name}")

    assert mute == []
