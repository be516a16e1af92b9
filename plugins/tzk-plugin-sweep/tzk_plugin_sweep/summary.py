"""The table of a sweep: means over seeds, with standard errors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tzk_core.report.table import aligned
from tzk_plugin_sweep.figures import UNITS, Evaluated, decimals, identity, units_of
from tzk_plugin_sweep.grid import Point


def rows_of(finished: Sequence[tuple[Point, Evaluated]]) -> list[dict[str, Any]]:
    """A row for every combination and quantity: mean and standard error over seeds.

    The standard error is the deviation between seeds over √n, null for a single seed. It says nothing of the samples,
    which all seeds have in common.
    """
    groups: dict[tuple[Any, ...], list[tuple[Point, Mapping[str, Any]]]] = {}
    for point, run in finished:
        for row in run.rows:
            groups.setdefault((tuple(point.values.items()), identity(row)), []).append((point, row))
    return [_row(members) for members in groups.values()]


def _row(members: Sequence[tuple[Point, Mapping[str, Any]]]) -> dict[str, Any]:
    point, first = members[0]
    row: dict[str, Any] = {"values": dict(point.values), "seeds": [each.seed for each, _ in members]}
    row |= {key: first[key] for key in ("dataset", "split", "kind", "name", "knowledge")}
    for unit in UNITS:
        figures = [figure for _, each in members if (figure := each.get(unit)) is not None]
        row[unit] = _mean(figures) if len(figures) == len(members) else None
    return row


def _mean(figures: Sequence[float]) -> dict[str, float | None]:
    error = statistics.stdev(figures) / math.sqrt(len(figures)) if len(figures) > 1 else None
    return {"mean": statistics.fmean(figures), "standard_error": error}


def markdown(sweep: Mapping[str, Any]) -> str:
    """sweep.json as text: one table a data set."""
    rows, keys = sweep["rows"], sweep["keys"]
    parts = [f"# Sweep of {sweep['config']}", NOTE]
    for dataset, split in dict.fromkeys((row["dataset"], row["split"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["split"]) == (dataset, split)]
        units = units_of(own)
        header = [*keys, "row", "kind", "seeds", *(UNITS[unit] for unit in units)]
        cells = [
            [*(row["values"][key] for key in keys), str(row["name"]), row["kind"], str(len(row["seeds"]))]
            + [decimals(*(row[unit] or {"mean": None}).values()) for unit in units]
            for row in own
        ]
        numeric = range(len(keys) + 2, len(header))
        parts += [f"## {dataset} ({split})", aligned(header, _escaped(cells), list(numeric))]
    failed = [f"- `{run['run']}`: {run['error']}" for run in sweep["runs"] if run["error"]]
    return "\n\n".join([*parts, *(["## Failed", "\n".join(failed)] if failed else [])]) + "\n"


NOTE = """\
Means over seeds ± the standard error of the mean between seeds, which says nothing of the samples: all seeds have
them in common. Of bits lower is better, of log p higher."""


def _escaped(cells: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[cell.replace("|", "\\|") for cell in row] for row in cells]
