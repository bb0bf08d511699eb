"""``config help [KEY [PROP]]``: what the schema knows."""

from __future__ import annotations

import textwrap

from smeconf.cli.db import MISSING, Call
from smeconf.database import DatabaseError
from smeconf.database.schema import Key, Property, Schema, nearest
from smeconf.database.values import describe_accepted


def show_help(call: Call) -> int:
    """Put out the keys, the properties of one key, or one property in full.

    Returns 0.  Raises DatabaseError, with the nearest name, for what is not known.
    """
    words = call.take(0, 2, "[KEY [PROP]]")
    try:
        schema = Schema.load(call.name, call.paths)
    except ValueError as error:
        raise DatabaseError(str(error)) from error
    if not words:
        return _all_keys(call, schema)
    known = schema.find(words[0], words[0])
    if known is None:
        hint = nearest(words[0], schema.known_keys() + schema.known_types())
        raise DatabaseError(f"{call.name} {words[0]}: nothing is known of it{hint}")
    if len(words) == 1:
        call.output.append(_of_key(words[0], known))
    else:
        rule = known.find(words[1])
        if rule is None:
            hint = nearest(words[1], list(known.properties))
            raise DatabaseError(
                f"{call.name} {words[0]} {words[1]}: nothing is known of it{hint}"
            )
        call.output.append(_of_property(f"{words[0]} {words[1]}", rule))
    return 0


def _all_keys(call: Call, schema: Schema) -> int:
    for key in schema.known_keys():
        known = schema.find(key)
        assert known
        call.output.append(f"{key:<16} {_first_sentence(known.help)}\n")
    for type in schema.known_types():
        known = schema.find("", type)
        assert known
        text = _first_sentence(known.help)
        call.output.append(f"{type:<16} (records of this type) {text}\n")
    return 0 if call.output else MISSING


def _of_key(key: str, known: Key) -> str:
    if known.value is not None:
        return _of_property(key, known.value)
    lines = [f"{key} ({known.type}): {known.help}\n"]
    for name, rule in known.properties.items():
        lines.append(f"    {name:<28} {_first_sentence(rule.help)}\n")
    return "".join(lines)


def _of_property(name: str, rule: Property) -> str:
    text = textwrap.fill(
        rule.help.strip(), 80, initial_indent="    ", subsequent_indent="    "
    )
    facts = "".join(f"    {word}: {fact}\n" for word, fact in facts_of(rule))
    return f"{name}\n{text}\n{facts}"


def facts_of(rule: Property) -> list[tuple[str, str]]:
    """Return what else there is to tell of a property, as pairs of word and text."""
    default = "none" if rule.default is None else rule.default or "empty"
    facts = [("accepts", describe_accepted(rule)), ("default", default)]
    if rule.optional and rule.default != "":
        facts.append(("empty", "accepted, as if it were absent"))
    if rule.is_list:
        facts.append(("list", "listadd and listdel change one entry"))
    if rule.secret:
        facts.append(("secret", "never shown in history and messages"))
    if rule.since:
        facts.append(("since", f"smeconf {rule.since}"))
    if rule.obsolete:
        facts.append(("obsolete, use", rule.obsolete))
    if rule.drives:
        facts.append(("drives", " ".join(f"/{target}" for target in rule.drives)))
    return facts


def _first_sentence(text: str) -> str:
    return text.strip().split(". ")[0].rstrip(".")
