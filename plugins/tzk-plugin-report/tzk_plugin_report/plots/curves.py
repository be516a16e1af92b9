"""Training curves: the columns of metrics.csv on one page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from tzk_core.training.metrics import read_rows
from tzk_plugin_report.plots import figure

FAMILY = 4
"""From this many names that differ in their last part only (digit-0 ... digit-9), one line is the mean of all."""

LINES = 24
"""The most lines by the last part of names; where there are more, names join by their first part."""


@dataclass(frozen=True)
class Line:
    """One labelled curve, the mean of its members.

    entity: a data set, a knowledge type or a family of these; its lines have one colour in all panels.
    members: (rows,) each, nan where nothing was logged.
    """

    entity: str
    label: str
    members: tuple[np.ndarray, ...]
    dashed: bool = False

    @property
    def mean(self) -> np.ndarray:
        """The mean of what was logged, (rows,), nan where nothing was."""
        values = np.stack(self.members)
        logged = np.isfinite(values)
        total = np.where(logged, values, 0).sum(0)
        return np.where(logged.any(0), total / np.maximum(logged.sum(0), 1), np.nan)


class Panel(NamedTuple):
    """Lines with a title and a vertical axis.

    scale: of that axis, "likelihood", "log" or "linear". unit: of that axis.
    """

    title: str
    lines: list[Line]
    scale: str
    unit: str


def draw(metrics_csv: Path, png: Path) -> None:
    """Draw bits per dim, inconsistency, multipliers and the weight of the prior over steps.

    Panels without columns are left out, and so are values that are empty, not finite or not numbers. Names that differ
    in their last part only are drawn faintly, with one line for their mean. Curves are smoothed over a thirtieth of the
    rows; the raw values stay behind them, faintly.

    Raises:
        TzkError: if it is no metrics.csv, or damaged.
    """
    columns = _read(metrics_csv)
    panels = [panel._replace(lines=_logged(panel.lines)) for panel in _panels(columns)]
    panels = [panel for panel in panels if panel.lines]
    across = min(2, max(1, len(panels)))
    page, all_axes = figure.figure(-(-max(1, len(panels)) // across), across, width=5.2, height=3.3)
    colours = figure.colours([line.entity for panel in panels for line in panel.lines])
    ends = []
    for axes, panel in zip(all_axes, panels, strict=False):
        ends.append((axes, _draw_panel(axes, panel, steps=columns["step"], colours=colours)))
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    if not panels:
        all_axes[0].text(0.5, 0.5, "nothing has been logged yet", ha="center", color=figure.TEXT)
    page.canvas.draw()  # makes positions final, which keep labels apart
    for axes, labels in ends:
        figure.label_ends(axes, labels)
    figure.write(page, png)


def _panels(columns: Mapping[str, np.ndarray]) -> list[Panel]:
    """All panels, whether anything was logged for them or not."""
    likelihood = _under(columns, "bits_per_dim/")
    lines = [Line(name, name, (values,)) for name, values in likelihood.items() if "/" not in name]
    nested = {name.replace("/", ", "): values for name, values in likelihood.items() if "/" in name}
    lines += _families(nested, dashed=True)
    lines += _families(_under(columns, "bits_per_dim_given/"), "given ", dashed=True)
    validation = [
        Line(name, f"{name}, validation", (values,), dashed=True)
        for name, values in _under(columns, "validation/").items()
    ]
    dashed = ["validation"] if validation else []
    dashed += ["given knowledge and its C"] if any(line.dashed for line in lines) else []
    legend = f"\ndashed: {' and '.join(dashed)}" if dashed else ""
    weight = Line("", "", (columns.get("prior_weight", np.full(len(columns["step"]), np.nan)),))
    return [
        Panel(f"Bits per dim in training{legend}", lines + validation, "likelihood", "bits/dim"),
        Panel("Inconsistency g, nats", _families(_under(columns, "inconsistency/")), "log", "nats"),
        Panel("Multipliers λ", _families(_under(columns, "multiplier/")), "linear", "λ, per nat"),
        Panel("Weight of log p(z) in the objective", [weight], "linear", "share"),
    ]


def _read(path: Path) -> dict[str, np.ndarray]:
    """Columns by name, in order of step; of a step logged twice, the last row."""
    names, rows, _ = read_rows(path)
    of_step = {int(row[0]): row for row in rows}
    columns = zip(*(of_step[step] for step in sorted(of_step)), strict=True) if rows else ([] for _ in names)
    return {name: np.array([_number(text) for text in column]) for name, column in zip(names, columns, strict=True)}


def _number(text: str) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return float("nan")
    return value if np.isfinite(value) else float("nan")


def _under(columns: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}


def _families(named: Mapping[str, np.ndarray], prefix: str = "", *, dashed: bool = False) -> list[Line]:
    """One line for each name, or for names that differ in their last part only.

    Where these are more than `LINES`, names with the same first part become one line.
    """
    stems = _stems(named, r"(.+[-_/ ])[^-_/ ]+")
    if len(stems) > LINES:
        stems = _stems(named, r"(.+?[-_/ ]).+")
    lines = []
    for stem, names in stems.items():
        if len(names) >= FAMILY:
            label = f"{prefix}{names[0]}…{names[-1].removeprefix(stem)}"
            lines.append(Line(stem, label, tuple(named[name] for name in names), dashed=dashed))
        else:
            lines += [Line(name, prefix + name, (named[name],), dashed=dashed) for name in names]
    return lines


def _stems(names: Iterable[str], pattern: str) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    for name in names:
        match = re.fullmatch(pattern, name)
        stems.setdefault(match[1] if match else name, []).append(name)
    return stems


def _logged(lines: list[Line]) -> list[Line]:
    return [line for line in lines if np.isfinite(line.mean).any()]


def _draw_panel(
    axes: Axes, panel: Panel, *, steps: np.ndarray, colours: Mapping[str, str]
) -> list[tuple[str, float, str]]:
    """Draw the lines of a panel.

    Returns:
        The labels at the ends of the lines: text, value and colour.
    """
    figure.title(axes, panel.title)
    figure.count_axis(axes, "step")
    figure.value_axis(axes, panel.unit)
    ends, shown = [], []
    for line in panel.lines:
        colour, style = colours[line.entity], "--" if line.dashed else "-"
        logged = np.isfinite(line.mean)
        smooth = _smoothed(line.mean[logged], max(1, len(steps) // 30))
        for values in line.members if len(line.members) > 1 or len(steps) > 60 else ():
            axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.25)
        marker = "o" if logged.sum() < 12 else ""
        axes.plot(steps[logged], smooth, style, color=colour, linewidth=1.8, marker=marker, markersize=4)
        ends.append((f"{line.label}  {_short(smooth[-1])}".strip(), float(smooth[-1]), colour))
        shown.append(smooth)
    first, last = (steps[0], steps[-1]) if len(steps) > 1 else (steps[0] - 1, steps[0] + 1)
    axes.set_xlim(first, last + 0.01 * (last - first))
    _set_scale(axes, panel, np.concatenate(shown))
    return ends


def _set_scale(axes: Axes, panel: Panel, values: np.ndarray) -> None:
    """Set the vertical axis for these smoothed values."""
    if panel.scale == "log" and (values > 0).all():
        figure.log_axis(axes)
        axes.set_ylim(values.min() / 1.3, values.max() * 1.3)
    elif panel.scale == "likelihood":  # the fall of the first steps would leave no room for the rest
        low, high = values.min(), np.quantile(values, 0.95)
        room = 0.08 * max(high - low, 0.01)
        axes.set_ylim(low - room, high + room)
        if values.max() > high + room:
            start = max(line.mean[np.isfinite(line.mean)][0] for line in panel.lines)
            figure.note(axes, f"starts at {_short(start)}, above the panel")
    else:
        low, high = min(0.0, values.min()), values.max()
        axes.set_ylim(low, high + 0.1 * max(high - low, 0.01))


def _smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """The running mean over `window` values on either side, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
