"""Templates: from fragments and the databases to the text of a generated file."""

from smeconf.templates.expand import Expander, Expansion, TemplateError
from smeconf.templates.layers import Fragment, Layers
from smeconf.templates.metadata import Directory, Metadata, TargetError, plain_path
from smeconf.templates.records import Snapshot
from smeconf.templates.targets import Output, outputs, text_of

__all__ = [
    "Directory",
    "Expander",
    "Expansion",
    "Fragment",
    "Layers",
    "Metadata",
    "Output",
    "Snapshot",
    "TargetError",
    "TemplateError",
    "outputs",
    "plain_path",
    "text_of",
]
