"""report.html in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tzk_core.errors import TzkError
from tzk_core.storage import atomic
from tzk_plugin_report.measuring import Measured, measure
from tzk_plugin_report.page import render
from tzk_plugin_report.reading import read_run

if TYPE_CHECKING:
    from tzk_core.runs.experiment import Experiment

FILE = "report.html"


def write_report(folder: Path, experiment: Experiment | None = None, file: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        experiment: of the run, so that data and model need not be read again.
        file: the page; report.html in the run folder by default.

    Returns:
        The file.

    Raises:
        TzkError: if `folder` is no run.
    """
    run = read_run(folder)
    measured: Measured | None = None
    reason = ""
    try:
        measured = measure(folder, experiment)
    except TzkError as error:  # results are worth a page without a model too
        reason = str(error)
    file = file or folder / FILE
    atomic.write(file, render(run, measured, reason=reason))
    return file
