"""Build step: compile the schema, so that ``config setprop`` parses no TOML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileSchema(BuildHookInterface[Any]):
    """Writes ``smeconf/database/_compiled.py`` from ``db/**/*.toml``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files of the wheel are gathered."""
        root = Path(self.root)
        sys.path.insert(0, self.root)
        try:
            from smeconf.database.compile import compile_tree, write_module
        finally:
            sys.path.remove(self.root)
        write_module(
            compile_tree(str(root / "db")), str(root / "smeconf/database/_compiled.py")
        )
