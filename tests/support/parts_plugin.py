"""What a plugin announces that offers parts of all types for training and sampling; it imports none of them."""

from tzk_core.plugins import Base, KnowledgeType, ObjectiveTerm, Optimizer, Sampler, Schedule, hookimpl


@hookimpl
def tzk_bases() -> list[Base]:
    return [Base("laplace", "parts_offered:Laplace", "a product of Laplace densities")]


@hookimpl
def tzk_knowledge_types() -> list[KnowledgeType]:
    return [
        KnowledgeType("laplace-z", "parts_offered:LaplaceKnowledge", "p(z given C): a product of Laplace densities")
    ]


@hookimpl
def tzk_optimizers() -> list[Optimizer]:
    return [Optimizer("descent", "parts_offered:Descent", "plain gradient descent with momentum")]


@hookimpl
def tzk_schedules() -> list[Schedule]:
    return [Schedule("linear", "parts_offered:linear", "falls in a straight line to a share")]


@hookimpl
def tzk_objective_terms() -> list[ObjectiveTerm]:
    return [
        ObjectiveTerm("small-z", "parts_offered:SmallZ", "-|z - centre|^2 / 2"),
        ObjectiveTerm("labels", "parts_offered:Labels", "log p(κ given z) of every κ that was observed"),
    ]


@hookimpl
def tzk_samplers() -> list[Sampler]:
    return [Sampler("resampling", "parts_offered:Resampling", "importance sampling, resampled")]
