"""Registers the models that the paper compares with, without importing torch."""

from tzk_core.plugins import FlowRecipe, KnowledgeType, hookimpl


@hookimpl
def tzk_flow_recipes() -> list[FlowRecipe]:
    """The whole flows of this plugin."""
    return [
        FlowRecipe(name=name, target=f"tzk_plugin_baselines.recipes:{target}", summary=summary)
        for name, target, summary in (
            ("nice", "nice", "additive couplings and a scale (Dinh et al. 2014)"),
            ("real-nvp", "real_nvp", "affine couplings of vectors (Dinh et al. 2017)"),
            ("maf", "maf", "masked autoregressive flow (Papamakarios et al. 2017)"),
            ("made-mog", "made_mog", "MADE with mixtures of Gaussians (Germain et al. 2015)"),
            ("maf-mog", "maf_mog", "masked autoregressive flow on a MADE with mixtures"),
            ("rq-nsf-coupling", "rq_nsf_coupling", "neural spline flow by couplings (Durkan et al. 2019)"),
            (
                "rq-nsf-autoregressive",
                "rq_nsf_autoregressive",
                "autoregressive neural spline flow (Durkan et al. 2019)",
            ),
            ("glow-nflows", "glow", "Glow of nflows parts (Kingma and Dhariwal 2018)"),
            ("logit", "logit", "logit, scale and shift: what knowledge of whole architectures stands on"),
        )
    ]


@hookimpl
def tzk_knowledge_types() -> list[KnowledgeType]:
    """The knowledge types of this plugin."""
    return [
        KnowledgeType(
            name="class-conditional",
            target="tzk_plugin_baselines.class_conditional:ClassConditional",
            summary="p(z given C): any flow of this plugin, C being the class of a sample",
        ),
        KnowledgeType(
            name="conditional-flow",
            target="tzk_plugin_baselines.contextual:ConditionalFlowKnowledge",
            summary="p(z given C): any flow of this plugin, all of its networks seeing C, any numbers",
        ),
    ]
