"""Registers the commands `score` and `ood` and the metric `outside`, without importing torch."""

from tzk_core.plugins import Command, Metric, hookimpl


@hookimpl
def tzk_commands() -> list[Command]:
    """The commands of this plugin."""
    return [
        Command("score", "tzk_plugin_outside.score:command", "say which knowledge images show, or that they show none"),
        Command("ood", "tzk_plugin_outside.ood:command", "tell a run's data from others: areas under ROC curves"),
    ]


@hookimpl
def tzk_metrics() -> list[Metric]:
    """The metric of this plugin."""
    return [Metric("outside", "tzk_plugin_outside.metric:Outside", "areas under ROC curves against another data set")]
