"""Registers the command `export`, without importing torch."""

from tzk_core.plugins import Command, hookimpl


@hookimpl
def tzk_commands() -> list[Command]:
    """The command of this plugin."""
    return [Command("export", "tzk_plugin_export.command:command", "write a run as programs: ONNX or torch.export")]
