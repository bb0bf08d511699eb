"""From the schema's TOML files to plain tables, and to the module built of them.

The tables also say what each property drives: the targets of shipped events whose
shipped fragments name it, in a branch taken or not.  That is read from the text of the
fragments, since a build has no Jinja.
"""

from __future__ import annotations

import os
import pprint
import re
import tomllib
from collections.abc import Iterator
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
    "obsolete": str,
    "optional": bool,
    "secret": bool,
    "since": str,
    "values": list,
}


def compile_tree(directory: str) -> dict[str, Tables]:
    """Return the tables of every database below ``directory``.

    What each property drives is told by ``templates`` and ``events`` beside it.
    """
    schema = {
        name: compile_database(os.path.join(directory, name))
        for name in sorted(os.listdir(directory))
        if os.path.isdir(os.path.join(directory, name))
    }
    beside = os.path.dirname(os.path.abspath(directory))
    templates = os.path.join(beside, "templates")
    for target in _event_targets(os.path.join(beside, "events")):
        for fragment in _fragments(templates, target).values():
            with open(fragment, encoding="utf-8") as file:
                for table in _tables_named(file.read(), schema):
                    driven = table.setdefault("drives", [])
                    if target not in driven:
                        driven.append(target)
    return schema


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
    """Return both, a site's properties replacing shipped ones of the same name.

    What shipped templates drive by a property stays so, whatever the site says of it.
    """
    merged = dict(shipped)
    for key, table in site.items():
        merged[key] = both = {**shipped.get(key, {}), **table}
        for name, entry in shipped.get(key, {}).items():
            if isinstance(entry, dict) and "drives" in entry:
                both[name] = {**both[name], "drives": entry["drives"]}
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
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    is_value = "type" not in table
    for word, entry in table.items():
        if word in _KEY_WORDS and not isinstance(entry, str):
            raise ValueError(f"{path}: {word} is a text")
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
    if not all(isinstance(value, str) for value in table.get("values", ())):
        raise ValueError(f"{path}: {what}: values is a list of texts")
    if table.get("kind", "text") not in CHECKS:
        kinds = ", ".join(CHECKS)
        raise ValueError(f"{path}: {what}: kind must be one of {kinds}")


def _event_targets(events: str) -> list[str]:
    """Return the targets of all events below a directory, sorted."""
    targets: set[str] = set()
    for event in os.listdir(events) if os.path.isdir(events) else ():
        top = os.path.join(events, event, "templates2expand")
        for directory, _, files in os.walk(top):
            targets.update(
                os.path.relpath(os.path.join(directory, file), top) for file in files
            )
    return sorted(targets)


def _fragments(templates: str, target: str) -> dict[str, str]:
    """Return the paths of the fragments that a shipped target is made of, by name."""
    place = os.path.join(templates, target)
    if os.path.isfile(place):
        return {target: place}
    if not os.path.isdir(place):
        return {}
    found = {}
    metadata = os.path.join(place, "metadata.toml")
    if os.path.isfile(metadata):
        with open(metadata, "rb") as file:
            base = tomllib.load(file).get("template", "").strip("/")
        if base:
            found = _fragments(templates, base)
    for entry in os.scandir(place):
        if entry.is_file() and entry.name != "metadata.toml":
            found[entry.name] = entry.path
    return {name: path for name, path in found.items() if os.path.getsize(path)}


_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_CODE = re.compile(r"\{\{(.*?)\}\}|\{%(.*?)%\}", re.DOTALL)
_SUBSCRIPT = re.compile(r"""\[\s*(["'])(\w+)\1\s*\]""")
_TEXT = re.compile(r"""'[^'\n]*'|"[^"\n]*\"""")
_NAME = re.compile(r"(\.?)\b([A-Za-z_]\w*)")


def _tables_named(fragment: str, schema: dict[str, Tables]) -> Iterator[dict[str, Any]]:
    """Yield the tables of properties, single values and records that are named.

    ``KEY.Property`` is one of the configuration; another ``.Property`` is one of any
    type of record in the databases that the fragment names (``networks[…].Mask``).
    """
    keys = schema.get("configuration", {})
    loose: set[str] = set()
    databases: set[str] = set()
    for code in _CODE.finditer(_COMMENT.sub("", fragment)):
        text = _TEXT.sub(" ", _SUBSCRIPT.sub(r".\2", code[1] or code[2]))
        before = ""
        for dot, name in _NAME.findall(text):
            if not dot and name in keys and "type" not in keys[name]:
                yield keys[name]
            elif dot and before in keys:
                if isinstance(keys[before].get(name), dict):
                    yield keys[before][name]
            elif dot:
                loose.add(name)
            elif name in schema:
                databases.add(name)
            before = "" if dot else name
    for database in databases - {"configuration"}:
        for key, table in schema[database].items():
            if key.startswith("types/"):
                yield table  # that there is such a record
                for name in loose & table.keys():
                    if isinstance(table[name], dict):
                        yield table[name]
