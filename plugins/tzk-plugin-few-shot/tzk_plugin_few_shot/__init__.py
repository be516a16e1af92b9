"""Registers the knowledge types and the layer of features, without importing torch."""

from tzk_core.plugins import FlowLayer, KnowledgeType, hookimpl


@hookimpl
def tzk_knowledge_types() -> list[KnowledgeType]:
    """The knowledge types of this plugin."""
    return [
        KnowledgeType(
            name="few-shot",
            target="tzk_plugin_few_shot.knowledge:FewShotKnowledge",
            summary="p(z given C): in closed form from 1 to 20 samples",
        ),
        KnowledgeType(
            name="exchangeable",
            target="tzk_plugin_few_shot.exchangeable:ExchangeableKnowledge",
            summary="one class, in closed form from its samples, over features trained for it",
        ),
        KnowledgeType(
            name="exchangeable-classes",
            target="tzk_plugin_few_shot.exchangeable:ClassesKnowledge",
            summary="what such classes have in common, which each of them starts from",
        ),
    ]


@hookimpl
def tzk_flow_layers() -> list[FlowLayer]:
    """The layer for `[[flow.layers]]`."""
    return [
        FlowLayer(
            name="feature-coupling",
            target="tzk_plugin_few_shot.feature_coupling:FeatureCoupling",
            summary="features of an image, of a network, come first in the latent: an additive coupling",
        )
    ]
