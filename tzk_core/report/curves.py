"""Training curves: the columns of metrics.csv as one page that is read at a glance."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from tzk_core.report import figure

FAMILY = 4
LINES = 24
"""From this many names that differ only in their last part (digit-0 ... digit-9), one line stands for all."""


@dataclass(frozen=True)
class Line:
    """One labelled curve: the mean of `members`, each `(rows,)` with nan where nothing was logged.

    Lines of one `entity` (a data set, a knowledge type, a family of these) have one colour in all panels.
    """

    entity: str
    label: str
    members: tuple[np.ndarray, ...]
    dashed: bool = False

    @property
    def mean(self) -> np.ndarray:
        values = np.stack(self.members)
        seen = np.isfinite(values)
        total = np.where(seen, values, 0).sum(0)
        return np.where(seen.any(0), total / np.maximum(seen.sum(0), 1), np.nan)


def draw(metrics_csv: Path, png: Path) -> None:
    """Draw bits per dim, inconsistency, multipliers and the weight of the prior over steps, from
    `metrics_csv` to `png`.

    A panel without columns is left out, as are values that are empty, not finite or not numbers. Names that
    differ only in their last part are drawn faintly, with one line for their mean. Curves are smoothed over a
    thirtieth of the rows; the raw values stay behind them, faintly.

    Raises:
        ValueError: the file has no `step` column.
    """
    columns = _read(metrics_csv)
    likelihood = _under(columns, "bits_per_dim/")
    lines = [Line(name, name, (values,)) for name, values in likelihood.items() if "/" not in name]
    held = [Line(name, f"{name}, validation", (each,), True) for name, each in _under(columns, "validation/").items()]
    nested = {name.replace("/", ", "): values for name, values in likelihood.items() if "/" in name}
    lines += _families(nested, dashed=True)
    lines += _families(_under(columns, "bits_per_dim_given/"), "given ", dashed=True)
    weight = Line("", "", (columns.get("prior_weight", np.full(len(columns["step"]), np.nan)),))
    what = ["validation"] if held else []
    what += ["given knowledge and its C"] if any(line.dashed for line in lines) else []
    dashed = f" (dashed: {' and '.join(what)})" if what else ""
    lines += held
    panels_of = (
        (f"Bits per dim in training{dashed}", lines, "likelihood"),
        ("Inconsistency g, nats", _families(_under(columns, "inconsistency/")), "log"),
        ("Multipliers λ", _families(_under(columns, "multiplier/")), "linear"),
        ("Weight of log p(z) in the objective", [weight], "linear"),
    )
    contents = [(title, logged, scale) for title, drawn, scale in panels_of if (logged := _logged(drawn))]

    across = min(2, max(1, len(contents)))
    page, panels = figure.figure(-(-max(1, len(contents)) // across), across, 5.2, 3.3)
    colours = figure.colours([line.entity for _, drawn, _ in contents for line in drawn])
    ends = []
    for axes, (title, drawn, scale) in zip(panels, contents, strict=False):
        ends.append((axes, _panel(axes, title, columns["step"], drawn, scale, colours)))
    for axes in panels[len(contents) :]:
        axes.set_axis_off()
    if not contents:
        panels[0].text(0.5, 0.5, "nothing has been logged yet", ha="center", color=figure.TEXT)
    page.canvas.draw()  # so that the positions that labels keep apart are final
    for axes, labels in ends:
        figure.label_ends(axes, labels)
    figure.write(page, png)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Columns by name, in order of step; a step logged twice counts as logged last."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or ()
        if "step" not in names:
            raise ValueError(f"expected a column 'step' in {path}; got {', '.join(names) or 'none'}")
        rows = {_number(row["step"]): row for row in reader}
    steps = sorted(step for step in rows if np.isfinite(step))
    return {name: np.array([_number(rows[step].get(name)) for step in steps]) for name in names}


def _number(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:  # a row that was cut off while being written
        return float("nan")
    return value if np.isfinite(value) else float("nan")


def _under(columns: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}


def _families(named: Mapping[str, np.ndarray], prefix: str = "", dashed: bool = False) -> list[Line]:
    """One line a name, except that names alike up to their last part become one line with many members; where these
    are too many lines, names alike in their first part."""
    stems = _stems(named, r"(.+[-_/ ])[^-_/ ]+")
    if len(stems) > LINES:
        stems = _stems(named, r"(.+?[-_/ ]).+")
    lines = []
    for stem, names in stems.items():
        if len(names) >= FAMILY:
            label = f"{prefix}{names[0]}…{names[-1].removeprefix(stem)}"
            lines.append(Line(stem, label, tuple(named[name] for name in names), dashed))
        else:
            lines += [Line(name, prefix + name, (named[name],), dashed) for name in names]
    return lines


def _stems(names: Iterable[str], pattern: str) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    for name in names:
        match = re.fullmatch(pattern, name)
        stems.setdefault(match[1] if match else name, []).append(name)
    return stems


def _logged(lines: list[Line]) -> list[Line]:
    return [line for line in lines if np.isfinite(line.mean).any()]


def _panel(
    axes: Axes, title: str, steps: np.ndarray, lines: list[Line], scale: str, colours: Mapping[str, str]
) -> list[tuple[str, float, str]]:
    """Draw `lines` and return what to write at their ends: (text, value, colour)."""
    figure.title(axes, title)
    figure.count_axis(axes, "step")
    ends, shown = [], []
    for line in lines:
        colour, style = colours[line.entity], "--" if line.dashed else "-"
        seen = np.isfinite(line.mean)
        smooth = _smoothed(line.mean[seen], max(1, len(steps) // 30))
        for values in line.members if len(line.members) > 1 or len(steps) > 60 else ():
            axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.25)
        marker = "o" if seen.sum() < 12 else ""
        axes.plot(steps[seen], smooth, style, color=colour, linewidth=1.8, marker=marker, markersize=4)
        ends.append((f"{line.label}  {_short(smooth[-1])}".strip(), float(smooth[-1]), colour))
        shown.append(smooth)
    first, last = (steps[0], steps[-1]) if len(steps) > 1 else (steps[0] - 1, steps[0] + 1)
    axes.set_xlim(first, last + 0.01 * (last - first))
    values = np.concatenate(shown)
    if scale == "log" and (values > 0).all():
        figure.log_axis(axes)
        axes.set_ylim(values.min() / 1.3, values.max() * 1.3)
    elif scale == "likelihood":  # the fall of the first steps would leave no room for the rest
        low, high = values.min(), np.quantile(values, 0.95)
        room = 0.08 * max(high - low, 0.01)
        axes.set_ylim(low - room, high + room)
        if values.max() > high + room:
            start = max(line.mean[np.isfinite(line.mean)][0] for line in lines)
            figure.note(axes, f"starts at {_short(start)}, above the panel")
    else:
        low, high = min(0.0, values.min()), values.max()
        axes.set_ylim(low, high + 0.1 * max(high - low, 0.01))
    return ends


def _smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """The running mean over `window` values on either side, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
