# mypy: disable-error-code="empty-body"
"""The hooks, which are all that a plugin can add; `tzk_core.testing.check_plugin` tests it.

Each docstring is a complete plugin, my_package/plugin.py, announced under [project.entry-points."tzk.v1"] of
pyproject.toml as  my-plugin = "my_package.plugin". Targets are text, so that a plugin imports nothing heavy.
"""

from collections.abc import Iterable

import pluggy

from tzk_core.plugins.specs import (
    Base,
    Command,
    Dataset,
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
)

hookspec, hookimpl = pluggy.HookspecMarker("tzk"), pluggy.HookimplMarker("tzk")


@hookspec
def tzk_knowledge_types() -> Iterable[KnowledgeType]:
    """Offer knowledge types: classes with the interface of `tzk_core.knowledge.Knowledge`.

    from tzk_core.plugins import KnowledgeType, hookimpl
    @hookimpl
    def tzk_knowledge_types():
        return [KnowledgeType("mixture", "my_package.mixture:Mixture", "z given C: a mixture of Gaussians")]
    """


@hookspec
def tzk_datasets() -> Iterable[Dataset]:
    """Offer data sets: classes with the interface of `tzk_core.data.protocol.Dataset`.

    from tzk_core.plugins import Dataset, hookimpl
    @hookimpl
    def tzk_datasets():
        return [Dataset("stars", "my_package.stars:Stars", "12,000 stellar spectra, 512 bins, 7 classes")]
    """


@hookspec
def tzk_flow_layers() -> Iterable[FlowLayer]:
    """Offer flow layers: classes that are nflows `Transform`s.

    from tzk_core.plugins import FlowLayer, hookimpl
    @hookimpl
    def tzk_flow_layers():
        return [FlowLayer("arcsinh", "my_package.arcsinh:ArcSinh", "x -> arcsinh(x), element by element")]
    """


@hookspec
def tzk_flow_recipes() -> Iterable[FlowRecipe]:
    """Offer recipes: functions that return a whole shared flow, as `tzk_core.recipes.paper:paper` does.

    from tzk_core.plugins import FlowRecipe, hookimpl
    @hookimpl
    def tzk_flow_recipes():
        return [FlowRecipe("glow", "my_package.glow:glow", "multi-scale affine couplings, Kingma 2018")]
    """


@hookspec
def tzk_commands() -> Iterable[Command]:
    """Offer commands: click commands, shown by `tzk --help` with their summaries.

    from tzk_core.plugins import Command, hookimpl
    @hookimpl
    def tzk_commands():
        return [Command("export", "my_package.export:command", "write the decoder of a run as an ONNX file")]
    """


@hookspec
def tzk_implementations() -> Iterable[Implementation]:
    """Offer implementations: other computations of registered layers on one type of device.

    from tzk_core.plugins import Implementation, hookimpl
    @hookimpl
    def tzk_implementations():
        return [Implementation("fast-symlog", "my_package.fast:SymLog", "one kernel", "symlog", "cuda")]
    """


@hookspec
def tzk_metrics() -> Iterable[Metric]:
    """Offer metrics: classes with the interface of `tzk_core.evaluation.metrics.Metric`.

    from tzk_core.plugins import Metric, hookimpl
    @hookimpl
    def tzk_metrics():
        return [Metric("sharpness", "my_package.sharpness:Sharpness", "how much ink samples have, beside the data's")]
    """


@hookspec
def tzk_optimizers() -> Iterable[Optimizer]:
    """Offer optimisers: classes with the interface of `tzk_core.training.optimizers.Optimiser`.

    from tzk_core.plugins import Optimizer, hookimpl
    @hookimpl
    def tzk_optimizers():
        return [Optimizer("lion", "my_package.lion:Lion", "steps along the sign of the momentum, Chen 2023")]
    """


@hookspec
def tzk_schedules() -> Iterable[Schedule]:
    """Offer schedules, functions of the number of steps: the learning rate's share by step.

    from tzk_core.plugins import Schedule, hookimpl
    @hookimpl
    def tzk_schedules():
        return [Schedule("linear", "my_package.linear:linear", "falls to zero in a straight line")]
    """


@hookspec
def tzk_bases() -> Iterable[Base]:
    """Offer base distributions of the shared flow: `tzk_core.distributions.base.Reparametrised` of a shape.

    from tzk_core.plugins import Base, hookimpl
    @hookimpl
    def tzk_bases():
        return [Base("laplace", "my_package.laplace:Laplace", "a product of Laplace densities")]
    """


@hookspec
def tzk_objective_terms() -> Iterable[ObjectiveTerm]:
    """Offer objective terms: what is called with a `tzk_core.objective.extra.TermBatch` and returns a value a sample.

    from tzk_core.plugins import ObjectiveTerm, hookimpl
    @hookimpl
    def tzk_objective_terms():
        return [ObjectiveTerm("small-z", "my_package.small:SmallZ", "-|z|^2 / 2, which keeps z small")]
    """


@hookspec
def tzk_samplers() -> Iterable[Sampler]:
    """Offer samplers of compositions: classes with the interface of `tzk_core.model.samplers.Sampler`.

    from tzk_core.plugins import Sampler, hookimpl
    @hookimpl
    def tzk_samplers():
        return [Sampler("gibbs", "my_package.gibbs:Gibbs", "one dimension of the noise at a time")]
    """


@hookspec
def tzk_observers() -> Iterable[Observer]:
    """Offer observers: classes with the interface of `tzk_core.training.observers.Observer`.

    from tzk_core.plugins import Observer, hookimpl
    @hookimpl
    def tzk_observers():
        return [Observer("tensorboard", "my_package.writer:Writer", "the log as curves in TensorBoard")]
    """


@hookspec
def tzk_pictures() -> Iterable[Picture]:
    """Offer pictures: functions that draw files of samples/, as `tzk_core.report.pictures:samples` does.

    from tzk_core.plugins import Picture, hookimpl
    @hookimpl
    def tzk_pictures():
        return [Picture("typicality", "my_package.typical:draw", "log p(T) of test data beside that of samples")]
    """


@hookspec
def tzk_reports() -> Iterable[Report]:
    """Offer reports: functions that write a file about a finished run, called at its end.

    from tzk_core.plugins import Report, hookimpl
    @hookimpl
    def tzk_reports():
        return [Report("slides", "my_package.slides:write", "slides.pdf, six pages for a talk")]
    """
