"""From the schema's TOML files to plain tables, and to the module built of them."""

from __future__ import annotations

import os
import pprint
import tomllib
from typing import Any

from smeconf.database.values import CHECKS

Tables = dict[str, dict[str, Any]]

_KEY_WORDS = {"type", "help"}
_PROPERTY_WORDS = {
    "default": str,
    "help": str,
    "kind": str,
    "maximum": int,
    "minimum": int,
    "optional": bool,
    "secret": bool,
    "values": list,
}


def compile_tree(directory: str) -> dict[str, Tables]:
    """Return the tables of every database below ``directory``."""
    return {
        name: compile_database(os.path.join(directory, name))
        for name in sorted(os.listdir(directory))
        if os.path.isdir(os.path.join(directory, name))
    }


def compile_database(directory: str) -> Tables:
    """Return the tables of one database: ``KEY`` or ``types/TYPE`` -> its TOML.

    Raises ValueError with ``file: why`` for what is no TOML or no schema.
    """
    tables: Tables = {}
    for prefix in ("", "types/"):
        folder = os.path.join(directory, prefix)
        if not os.path.isdir(folder):
            continue
        for name in sorted(os.listdir(folder)):
            key, extension = os.path.splitext(name)
            if extension == ".toml":
                tables[prefix + key] = _read(os.path.join(folder, name))
    return tables


def merge(shipped: Tables, site: Tables) -> Tables:
    """Return both, a site's properties replacing shipped ones of the same name."""
    merged = dict(shipped)
    for key, table in site.items():
        merged[key] = {**shipped.get(key, {}), **table}
    return merged


def write_module(schema: dict[str, Tables], path: str) -> None:
    """Write the module that ``smeconf.database.schema`` imports."""
    text = pprint.pformat(schema, width=88, sort_dicts=False)
    declared = "SCHEMA: dict[str, dict[str, dict[str, object]]]"
    module = f'"""Made from db/**/*.toml by the build."""\n\n{declared} = {text}\n'
    with open(path, "w", encoding="utf-8") as file:
        file.write(module)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    is_value = "type" not in table
    for word, entry in table.items():
        if isinstance(entry, dict):
            _check_property(path, f"property {word}", entry)
        elif word not in _KEY_WORDS and not (is_value and word in _PROPERTY_WORDS):
            raise ValueError(f"{path}: {word} is not a word of a schema")
    if is_value:
        own = {word: entry for word, entry in table.items() if word in _PROPERTY_WORDS}
        _check_property(path, "the value", own)
    return table


def _check_property(path: str, what: str, table: dict[str, Any]) -> None:
    for word, entry in table.items():
        wanted = _PROPERTY_WORDS.get(word)
        if wanted is None or not isinstance(entry, wanted):
            raise ValueError(f"{path}: {what}: {word} is not known, or of a wrong type")
    if table.get("kind", "text") not in CHECKS:
        kinds = ", ".join(CHECKS)
        raise ValueError(f"{path}: {what}: kind must be one of {kinds}")
