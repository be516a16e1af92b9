"""Registers the command `new-plugin`, without importing torch.

Its checks are imported from `tzk_core.testing`, where they were before.
"""

from tzk_core.plugins import Command, hookimpl


@hookimpl
def tzk_commands() -> list[Command]:
    """The command of this plugin."""
    return [Command("new-plugin", "tzk_plugin_kit.command:command", "write a plugin that installs, with a test")]
