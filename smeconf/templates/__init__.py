"""Templates: from fragments and the databases to the text of a generated file."""

from smeconf.templates.expand import Expander, Expansion, TemplateError
from smeconf.templates.layers import Fragment, Layers, Metadata, TargetError
from smeconf.templates.records import Snapshot

__all__ = [
    "Expander",
    "Expansion",
    "Fragment",
    "Layers",
    "Metadata",
    "Snapshot",
    "TargetError",
    "TemplateError",
]
