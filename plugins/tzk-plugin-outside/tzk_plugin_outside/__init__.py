"""Registers the commands `score` and `ood`, without importing torch."""

from tzk_core.plugins import Command, hookimpl


@hookimpl
def tzk_commands() -> list[Command]:
    """The commands of this plugin."""
    return [
        Command("score", "tzk_plugin_outside.score:command", "say which knowledge images show, or that they show none"),
        Command("ood", "tzk_plugin_outside.ood:command", "tell a run's data from others: areas under ROC curves"),
    ]
