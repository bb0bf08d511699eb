"""The page docs/properties.md: every key and property of the schema.

    python -m smeconf.cli.reference > docs/properties.md

``make docs`` does that; a test fails where the page is not what the schema gives.
"""

from __future__ import annotations

import sys

from smeconf.cli.db_help import facts_of
from smeconf.database.compile import compile_tree
from smeconf.database.schema import Key, Property
from smeconf.paths import shipped

_HEAD = """\
# Keys and properties

Made from `db/` by `make docs`: change it there. `config help KEY PROP` (for other
databases `db DATABASE help TYPE PROP`) tells the same.

*drives* names the generated files whose shipped templates read the property; without
it nothing that is shipped reads it yet.
"""


def page() -> str:
    """Return the text of the page."""
    schema = compile_tree(shipped("db"))
    contents: list[str] = []
    sections: list[str] = []
    for database, tables in schema.items():
        contents.append(f"* {database}")
        sections.append(f"## {database}\n")
        for key, table in sorted(tables.items(), key=lambda pair: pair[0].lower()):
            name = key.removeprefix("types/")
            anchor = f"{database}-{name}".lower()
            contents.append(f"  * [{name}](#{anchor})")
            sections.append(f'<a id="{anchor}"></a>\n')
            sections += _section(name, Key(table), is_type=key != name)
    return "\n".join([_HEAD, *contents, "", *sections])


def _section(name: str, known: Key, *, is_type: bool) -> list[str]:
    if known.value is not None:
        return [f"### {name}\n", *_property(known.value)]
    title = f"Records of type {name}" if is_type else name
    lines = [f"### {title}\n", _plain(known.help) + "\n"]
    for property, rule in known.properties.items():
        title = "any other" if property == "*" else property
        lines += [f"#### {name} {title}\n", *_property(rule)]
    return lines


def _property(rule: Property) -> list[str]:
    facts = [f"* {word}: {_fact(word, text)}" for word, text in facts_of(rule)]
    kind = "choice" if rule.values else rule.kind
    return [_plain(rule.help) + "\n", f"* kind: {kind}", *facts, ""]


def _fact(word: str, text: str) -> str:
    if word == "drives":
        return ", ".join(f"`{target}`" for target in text.split())
    if word == "default" and text not in ("none", "empty"):
        return f"`{text}`"
    return _plain(text)


def _plain(text: str) -> str:
    """Return a text in which Markdown finds nothing to read."""
    for sign in "\\`*_<>[]":
        text = text.replace(sign, "\\" + sign)
    return text.strip()


if __name__ == "__main__":
    sys.stdout.write(page())
