"""What a plugin imports (`hookimpl` and the specs), and what finds plugins (`registry`).

Importing it imports neither torch nor nflows, and no plugin. How a plugin is written: `hookspecs.py`.
"""

from tzk_core.plugins.hookspecs import hookimpl
from tzk_core.plugins.loader import PluginRecord
from tzk_core.plugins.registry import (
    FaultyPlugins,
    MissingPlugin,
    NameClash,
    PartNotLoadable,
    Registered,
    Registry,
    UnknownPart,
    registry,
)
from tzk_core.plugins.specs import (
    SPEC_TYPES,
    Command,
    Dataset,
    FaultySpec,
    FlowLayer,
    FlowRecipe,
    Implementation,
    KnowledgeType,
    Metric,
    Report,
    Spec,
)
from tzk_core.plugins.validation import GROUP

__all__ = [
    "GROUP",
    "SPEC_TYPES",
    "Command",
    "Dataset",
    "FaultyPlugins",
    "FaultySpec",
    "FlowLayer",
    "FlowRecipe",
    "Implementation",
    "KnowledgeType",
    "Metric",
    "MissingPlugin",
    "NameClash",
    "PartNotLoadable",
    "PluginRecord",
    "Registered",
    "Registry",
    "Report",
    "Spec",
    "UnknownPart",
    "hookimpl",
    "registry",
]
