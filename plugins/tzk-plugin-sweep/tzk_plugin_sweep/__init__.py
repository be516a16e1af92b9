"""Registers the commands `sweep` and `compare`, without importing torch."""

from tzk_core.plugins import Command, hookimpl


@hookimpl
def tzk_commands() -> list[Command]:
    """The commands of this plugin."""
    return [
        Command("sweep", "tzk_plugin_sweep.sweep:command", "run a config for many values and seeds, side by side"),
        Command("compare", "tzk_plugin_sweep.compare:command", "put the figures of runs in one table"),
    ]
