"""`tzk report RUN [RUN ...]`: one HTML page of a run, and one that compares several."""

from __future__ import annotations

from pathlib import Path

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.runs.folder import RunFolder


@click.command(name="report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page; default RUN/report.html, or comparison.html of several runs.",
)
def command(runs: tuple[Path, ...], file: Path | None) -> None:
    """Write the report of a run as one HTML page, or compare several runs.

    The page says how good the run is, what is worth knowing of it, and shows its curves, samples and planes of C. It
    needs no network and no other file. Of a run whose data are gone, it has what results.json and the model say.
    """
    from tzk_plugin_report.comparison import write_comparison  # these import torch, or jinja2
    from tzk_plugin_report.writing import write_report

    if file is not None and not file.parent.is_dir():
        raise TzkError(f"{file} cannot be written: there is no folder {file.parent}")
    folders = [RunFolder.open(run).path for run in runs]
    if len(folders) == 1:
        output.say(str(write_report(folders[0], file=file)))
        return
    output.say(str(write_comparison(folders, file or Path("comparison.html"))))
