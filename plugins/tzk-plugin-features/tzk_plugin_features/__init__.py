"""Registers the knowledge type `features`, without importing torch."""

from tzk_core.plugins import KnowledgeType, hookimpl


@hookimpl
def tzk_knowledge_types() -> list[KnowledgeType]:
    """The knowledge type of this plugin."""
    return [
        KnowledgeType(
            name="features",
            target="tzk_plugin_features.knowledge:FeatureKnowledge",
            summary="p(z given C)/p(z): Gaussians in features of the image, in closed form, one class at a time",
        )
    ]
