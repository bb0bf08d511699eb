"""Which way imports point."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "smeconf"

CONFIGURING = ("database", "templates", "events", "plan", "services", "system")
FILTERING = ("smtpd", "mailauth", "dns")
PLUGIN_API = (
    *("plugin", "hooks", "state", "message", "address", "address_list", "log"),
    *("client", "delivery", "passwords", "routes", "sasl", "taken"),
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(name: str) -> Iterator[str]:
    """Every module of ours that a module names in an import, wherever it stands."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if is_ours(one.name))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            if node.module and is_ours(node.module):
                for one in node.names:
                    deeper = f"{node.module}.{one.name}"
                    yield deeper if deeper in MODULES else node.module


def is_ours(name: str) -> bool:
    return name.split(".")[0] == "smeconf"


def below(name: str, *packages: str) -> bool:
    return any(
        name == f"smeconf.{package}" or name.startswith(f"smeconf.{package}.")
        for package in packages
    )


def faults(*of: str, may_import: tuple[str, ...]) -> list[str]:
    return [
        f"{name} imports {imported}"
        for name in sorted(MODULES)
        if below(name, *of)
        for imported in imports_of(name)
        if not below(imported, *may_import)
    ]


def test_configuring_half_knows_nothing_of_the_filter() -> None:
    assert faults(*CONFIGURING, may_import=(*CONFIGURING, "paths")) == []


def test_filter_knows_nothing_of_the_configuring_half() -> None:
    assert faults(*FILTERING, may_import=(*FILTERING, "paths")) == []


def test_lower_layers_of_the_configuring_half_know_nothing_of_the_upper() -> None:
    assert faults("database", may_import=("database", "paths")) == []
    assert faults("templates", may_import=("templates", "database", "paths")) == []


def test_paths_dns_and_system_import_nothing_of_ours() -> None:
    assert faults("paths", may_import=()) == []
    assert faults("dns", may_import=("dns",)) == []
    assert faults("system", may_import=()) == []


def test_mailauth_imports_only_dns() -> None:
    assert faults("mailauth", may_import=("mailauth", "dns")) == []


@pytest.mark.parametrize(
    "plugin",
    sorted(
        name
        for name, path in MODULES.items()
        if below(name, "smtpd.plugins") and path.name != "__init__.py"
    ),
)
def test_plugin_imports_only_what_plugins_are_given(plugin: str) -> None:
    """Never the session, the server or another plugin."""
    api = tuple(f"smtpd.{name}" for name in PLUGIN_API)

    strangers = [
        name for name in imports_of(plugin) if not below(name, *api, "mailauth", "dns")
    ]

    assert strangers == []


def test_nothing_imports_the_commands_but_the_commands() -> None:
    importers = [
        name
        for name in MODULES
        if not below(name, "cli")
        for imported in imports_of(name)
        if below(imported, "cli")
    ]

    assert importers == []


def test_every_module_says_what_it_is() -> None:
    mute = [
        name
        for name, path in MODULES.items()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert mute == []
