"""`tzk export RUN`: a model as programs that need no TzK.

They compute log p(T), z from T, and T from noise.
"""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli import output


@click.command(name="export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--knowledge", help="Export its conditional, with C as an input; without it p(T).")
@click.option("--format", type=click.Choice(["onnx", "pt2"]), default="pt2", show_default=True, help="Of the files.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write to; by default exported/ in RUN.")
def command(*, run: Path, knowledge: str | None, format: str, out: Path | None) -> None:
    """Write the model of RUN as programs, for any batch size.

    There are three: log_prob, encode and sample_from_noise. Each is read back, and its results compared with the
    model's, relative to 1 + |result|.
    """
    from tzk_core import load
    from tzk_plugin_export.programs import export

    folder = out or run / "exported"
    for name, difference in export(load(run), folder, format=format, knowledge=knowledge).items():
        output.say(f"{folder / name}  differs by {difference:.1g}")
