"""Training curves of a run, as the page draws them: panels of series over steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tzk_plugin_report.reading import Columns

PANELS = (
    ("likelihood", "Bits per dimension of the data", "bits/dim", ("bits_per_dim/", "validation/"), "lower is better"),
    ("given", "Bits per dimension, knowledge given", "bits/dim", ("bits_per_dim_given/",), "lower is better"),
    ("inconsistency", "Inconsistency g between encoder and decoder", "nats", ("inconsistency/",), "lower is better"),
    ("multiplier", "Multipliers λ of the constraint", "per nat", ("multiplier/",), "0: the constraint is met"),
)
"""Key, title, unit, prefixes of columns, and how to read it."""

MOST_POINTS = 1000
"""Steps of a curve; of more, means over neighbours are drawn."""

DIGITS = 5


def panels(columns: Columns) -> list[dict[str, Any]]:
    """Panels with something logged, each with its steps and series.

    A series has a label, whether it is dashed, and values with null for gaps.
    """
    steps = [int(step or 0) for step in columns.get("step", ())]
    drawn = []
    for key, title, unit, prefixes, reading in PANELS:
        series = [
            {"label": _label(name, prefix), "dashed": prefix == "validation/", "values": _thinned(values)}
            for prefix in prefixes
            for name, values in columns.items()
            if name.startswith(prefix) and any(value is not None for value in values)
        ]
        if series and len(steps) > 1:
            thinned = [step for step in _thinned(steps) if step is not None]
            drawn.append(
                {"key": key, "title": title, "unit": unit, "reading": reading, "steps": thinned, "series": series}
            )
    return drawn


def _label(name: str, prefix: str) -> str:
    return name.removeprefix(prefix) + (", validation" if prefix == "validation/" else "")


def _thinned(values: Sequence[float | None]) -> list[float | None]:
    """Means over neighbours, so that at most `MOST_POINTS` are left, rounded."""
    size = -(-len(values) // MOST_POINTS)
    means: list[float | None] = []
    for start in range(0, len(values), size):
        present = [value for value in values[start : start + size] if value is not None]
        means.append(float(f"{sum(present) / len(present):.{DIGITS}g}") if present else None)
    return means
