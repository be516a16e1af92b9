"""The last lines of a command that leaves a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tzk_core.cli import output
from tzk_core.report.words import summary
from tzk_core.runs.folder import RunFolder


def say_end(folder: RunFolder, results: Mapping[str, Any], reports: Sequence[Path]) -> None:
    """Print the sentences on the results, and the files to open, reports first."""
    for line in summary(results):
        output.result(line)
    where = [*map(str, reports), str(folder.table), str(folder.path / "samples")]
    output.result(f"{'report' if reports else 'results'}: {', '.join(where)}")
