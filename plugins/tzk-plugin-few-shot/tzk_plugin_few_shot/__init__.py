"""Registers the knowledge type `few-shot`, without importing torch."""

from tzk_core.plugins import KnowledgeType, hookimpl


@hookimpl
def tzk_knowledge_types() -> list[KnowledgeType]:
    """The knowledge type of this plugin."""
    return [
        KnowledgeType(
            name="few-shot",
            target="tzk_plugin_few_shot.knowledge:FewShotKnowledge",
            summary="p(z given C): in closed form from 1 to 20 samples",
        )
    ]
