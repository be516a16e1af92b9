"""`tzk compare RUN RUN ...`: figures of runs in one table, with differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.report.table import aligned
from tzk_core.strict_json import json_text
from tzk_plugin_sweep.figures import (
    IDENTITY,
    UNITS,
    Evaluated,
    Row,
    decimals,
    difference_of_data,
    error_of,
    evaluated,
    identity,
    units_of,
)

FORMAT = 1
NOTE = """\
Difference: the run less the first, on the same samples. Its standard error is at least the difference of both errors
and at most their sum, which stands behind ±. Of bits lower is better, of log p higher."""


@click.command(name="compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, runs: tuple[Path, ...], as_json: bool) -> None:
    """Put the figures of runs in one table, beside those of the first.

    A difference stands where both figures are of the same samples alone; where data, split or limit differ, the table
    says so in its place.
    """
    if len(runs) < 2:
        raise TzkError(f"two runs or more are compared; got {len(runs)}: tzk compare RUN RUN")
    compared = comparison([evaluated(path) for path in runs])
    output.say(json_text(compared) if as_json else markdown(compared), nl=as_json)


def comparison(runs: Sequence[Evaluated]) -> dict[str, Any]:
    """All rows of all runs, with their differences from the first run.

    Returns:
        "runs", their paths, and "rows". A row has the keys of `IDENTITY` and, by unit, "figures" of every run:
        "value", "standard_error", "difference" from the first run and its "largest_error", null where there is none.
        "not_the_same_data" is by run the reason why there is no difference, "" where there may be one.
    """
    by_quantity: dict[tuple[Any, ...], dict[int, Row]] = {}
    for number, run in enumerate(runs):
        for row in run.rows:
            by_quantity.setdefault(identity(row), {})[number] = row
    rows = []
    for quantity, found in by_quantity.items():
        dataset, split = quantity[:2]
        reasons = [
            difference_of_data(runs[0], run, dataset=dataset, split=split) if i and i in found else ""
            for i, run in enumerate(runs)
        ]
        units = {unit: _figures(found, unit, reasons) for unit in units_of(list(found.values()))}
        rows.append({**dict(zip(IDENTITY, quantity, strict=True)), "figures": units, "not_the_same_data": reasons})
    return {"format": FORMAT, "runs": [str(run.path) for run in runs], "rows": rows}


def _figures(found: dict[int, Row], unit: str, reasons: Sequence[str]) -> list[dict[str, float | None]]:
    figures: list[dict[str, float | None]] = []
    for number, reason in enumerate(reasons):
        row, first = found.get(number, {}), found.get(0, {})
        value, error = row.get(unit), error_of(row, unit)
        other, others = first.get(unit), error_of(first, unit)
        comparable = number > 0 and not reason and value is not None and other is not None
        if comparable and row.get("count") != first.get("count"):
            comparable = False
        both = comparable and error is not None and others is not None
        figures.append(
            {
                "value": value,
                "standard_error": error,
                "difference": value - other if comparable else None,  # type: ignore[operator]
                "largest_error": error + others if both else None,  # type: ignore[operator]
            }
        )
    return figures


def markdown(compared: dict[str, Any]) -> str:
    """A comparison as text: a table for every data set and unit."""
    runs = compared["runs"]
    parts = ["# Runs compared", "\n".join(f"{number}. {run}" for number, run in enumerate(runs, 1)), NOTE]
    for dataset, split in dict.fromkeys((row["dataset"], row["split"]) for row in compared["rows"]):
        own = [row for row in compared["rows"] if (row["dataset"], row["split"]) == (dataset, split)]
        for unit in [unit for unit in UNITS if any(unit in row["figures"] for row in own)]:
            header = ["row", "kind", "1"]
            for number in range(2, len(runs) + 1):
                header += [str(number), f"{number} less 1"]
            cells = [_cells(row, row["figures"][unit]) for row in own if unit in row["figures"]]
            parts += [f"## {dataset} ({split}), {UNITS[unit]}", aligned(header, cells, range(2, len(header)))]
        reasons = dict.fromkeys(
            (number, reason) for row in own for number, reason in enumerate(row["not_the_same_data"], 1) if reason
        )
        if reasons:
            parts.append("\n".join(f"- {number} is not on the data of 1: {reason}." for number, reason in reasons))
    return "\n\n".join(parts) + "\n"


def _cells(row: dict[str, Any], figures: Sequence[dict[str, float | None]]) -> list[str]:
    cells = [str(row["name"]).replace("|", "\\|"), row["kind"]]
    for number, figure in enumerate(figures):
        cells.append(decimals(figure["value"], figure["standard_error"]))
        if number:
            other = "other data" if row["not_the_same_data"][number] else decimals(None)
            difference = figure["difference"]
            shown = other if difference is None else decimals(difference, figure["largest_error"])
            cells.append(shown if difference is None or difference < 0 else f"+{shown}")
    return cells
