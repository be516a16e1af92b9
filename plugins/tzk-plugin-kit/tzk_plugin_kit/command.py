"""`tzk new-plugin NAME`: a folder with a plugin that installs, and whose tests pass."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli import output
from tzk_plugin_kit.new import kinds, new_plugin


@click.command(name="new-plugin")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(list(kinds())), default="knowledge", show_default=True, help="What the plugin adds."
)
@click.option(
    "--into", type=click.Path(path_type=Path), default=Path(), help="The folder for the new one; by default this one."
)
def command(name: str, kind: str, into: Path) -> None:
    """Write a plugin called NAME: package, test with the conformance kit, README, licence and workflow.

    NAME is of lower-case words joined by "-", such as two-stars. The folder is called tzk-plugin-NAME.
    """
    folder = new_plugin(name, kind, into)
    output.say(f"{folder}: {kinds()[kind].summary[0].lower()}{kinds()[kind].summary[1:]}\n")
    output.say(
        output.fields([("next", f"cd {folder}"), ("", 'pip install -e ".[test]"'), ("", "pytest"), ("", "tzk plugins")])
    )
