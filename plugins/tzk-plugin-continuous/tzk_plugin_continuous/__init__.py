"""Register the layer and recipe `ffjord`, and what counts their evaluations, without importing torch."""

from tzk_core.plugins import FlowLayer, FlowRecipe, Metric, ObjectiveTerm, hookimpl


@hookimpl
def tzk_flow_layers() -> list[FlowLayer]:
    """A layer for `[[flow.layers]]`."""
    summary = "the flow of an ordinary differential equation (Chen et al. 2018, FFJORD)"
    return [FlowLayer("ffjord", "tzk_plugin_continuous.ffjord:Ffjord", summary)]


@hookimpl
def tzk_flow_recipes() -> list[FlowRecipe]:
    """A whole flow for `[flow] recipe`."""
    summary = "continuous flow of vectors and small images (Grathwohl et al. 2018)"
    return [FlowRecipe("ffjord", "tzk_plugin_continuous.recipe:ffjord", summary)]


@hookimpl
def tzk_objective_terms() -> list[ObjectiveTerm]:
    """A column of metrics.csv, by `[[objective.terms]]`."""
    summary = "how often the networks of continuous layers were evaluated; weight = 0"
    return [ObjectiveTerm("function-evaluations", "tzk_plugin_continuous.evaluations:FunctionEvaluations", summary)]


@hookimpl
def tzk_metrics() -> list[Metric]:
    """A table of results, by `[[evaluation.metrics]]`."""
    summary = "evaluations a sample, and how far solvers of continuous layers are off, in nats"
    return [Metric("solver", "tzk_plugin_continuous.solver_metric:SolverMetric", summary)]
