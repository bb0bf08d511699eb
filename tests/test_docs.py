"""What the documents claim is held by tests that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def named_tests() -> Iterator[tuple[str, str, str]]:
    """Every test that a document names: document, file, test."""
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for file, test in NAMED.findall(document.read_text(encoding="utf-8")):
            yield document.name, file, test


def functions_of(file: str) -> set[str]:
    path = ROOT / file
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("document", "file", "test"), sorted(set(named_tests())), ids=str
)
def test_test_that_a_document_names_exists(document: str, file: str, test: str) -> None:
    assert test in functions_of(file), f"{document} names {file}::{test}"


def test_every_failure_of_an_event_is_held_by_a_test() -> None:
    text = (ROOT / "docs/events.md").read_text(encoding="utf-8")
    table = text.partition("## What goes wrong")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]

    assert len(rows) > 20
    assert [row for row in rows if len(NAMED.findall(row)) != 1] == []
