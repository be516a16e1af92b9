"""Reports of plugins, written at the end of a run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tzk_core.errors import Note
from tzk_core.plugins import Report, registry
from tzk_core.plugins.isolation import worded
from tzk_core.protection import protected

if TYPE_CHECKING:
    from tzk_core.runs.experiment import Experiment


def has_reports() -> bool:
    """Whether an installed plugin writes a report."""
    return bool(registry().all(Report))


def write_reports(folder: Path, experiment: Experiment | None = None) -> list[Path]:
    """Have every report of the installed plugins written; the files.

    What one raises is a warning: a run that is finished stays so.

    Args:
        folder: of the run, complete.
        experiment: of the run, so that data and model need not be read again.
    """
    files = []
    for part in registry().all(Report):
        try:
            with protected():
                files.append(Path(part.load()(folder=folder, experiment=experiment)))
        except Exception as error:  # a plugin raises what it likes
            source = f"plugin {part.plugin!r} ({part.distribution} {part.version})"
            warnings.warn(
                f"the report {part.name!r} of {source} was not written, and the run is complete without it: "
                f"{worded(error)}",
                Note,
                stacklevel=2,
            )
    return files
