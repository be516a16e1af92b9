# mypy: disable-error-code="empty-body"
"""The hooks, which are all that a plugin can add; `tzk_core.testing.check_plugin` tests it.

Each docstring is a complete plugin, my_package/plugin.py, announced under [project.entry-points."tzk.v1"] of
pyproject.toml as  my-plugin = "my_package.plugin". Targets are text, so that a plugin imports nothing heavy.
"""

from collections.abc import Iterable

import pluggy

from tzk_core.plugins.specs import Command, Dataset, FlowLayer, FlowRecipe, Implementation, KnowledgeType, Metric, Report

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
def tzk_reports() -> Iterable[Report]:
    """Offer reports: functions that write a file about a finished run, called at its end.

    from tzk_core.plugins import Report, hookimpl
    @hookimpl
    def tzk_reports():
        return [Report("slides", "my_package.slides:write", "slides.pdf, six pages for a talk")]
    """
