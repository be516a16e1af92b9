"""What a plugin imports (`hookimpl` and the specs), and what finds plugins (`registry`).

Importing it imports neither torch nor nflows, and no plugin. How a plugin is written: `hookspecs.py`.
"""

from tzk_core.plugins.hookspecs import hookimpl
from tzk_core.plugins.records import PluginRecord
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
    Base,
    Command,
    Dataset,
    FaultySpec,
    FlowLayer,
    FlowRecipe,
    Implementation,
    KnowledgeType,
    Metric,
    ObjectiveTerm,
    Observer,
    Optimizer,
    Picture,
    Report,
    Sampler,
    Schedule,
    Spec,
)
from tzk_core.plugins.validation import GROUP

__all__ = [
    "GROUP",
    "SPEC_TYPES",
    "Base",
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
    "ObjectiveTerm",
    "Observer",
    "Optimizer",
    "PartNotLoadable",
    "Picture",
    "PluginRecord",
    "Registered",
    "Registry",
    "Report",
    "Sampler",
    "Schedule",
    "Spec",
    "UnknownPart",
    "hookimpl",
    "registry",
]
