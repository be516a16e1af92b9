"""Scatter plots of two-dimensional data, of samples, and of reconstructions through C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Tensor

from tzk_plugin_report.plots import figure


def beside(observed: Mapping[str, Tensor], samples: Mapping[str, Tensor], path: Path, *, title: str) -> None:
    """Draw test points to the left of samples, in one colour for each name.

    Args:
        observed, samples: (n, 2) by name.
    """
    page, panels = figure.figure(1, 2, width=4.4, height=4.4)
    colours = figure.colours([*observed, *samples])
    for axes, points, text in zip(panels, (observed, samples), ("test data", f"samples: {title}"), strict=True):
        figure.title(axes, text)
        _points(axes, points, colours)
        _frame(axes, list(observed.values()))
    figure.write(page, path)


def alone(samples: Mapping[str, Tensor], path: Path, *, title: str) -> None:
    """Draw samples, (n, 2) by name, in one colour for each name."""
    page, (axes,) = figure.figure(1, 1, width=4.8, height=4.8)
    figure.title(axes, title)
    _points(axes, samples, figure.colours([*samples]))
    _frame(axes, list(samples.values()))
    figure.write(page, path)


def moved(before: Tensor, after: Tensor, path: Path, *, title: str) -> None:
    """Draw lines from points `before` to dots `after`, (n, 2) both."""
    page, (axes,) = figure.figure(1, 1, width=4.8, height=4.8)
    figure.title(axes, title)
    start, end = before.detach().cpu().float(), after.detach().cpu().float()
    lines = list(torch.stack([start, end], 1).numpy())
    axes.add_collection(LineCollection(lines, colors=figure.QUIET, linewidths=0.7))
    axes.scatter(start[:, 0], start[:, 1], s=7, color=figure.QUIET, linewidths=0)
    axes.scatter(end[:, 0], end[:, 1], s=9, color=figure.COLOURS[0], linewidths=0, zorder=3)
    _frame(axes, [start])
    _notes(axes, (("test", "#777777"), ("through C", figure.COLOURS[0])))
    figure.write(page, path)


def net(
    along_first: Tensor, along_second: Tensor, path: Path, *, title: str, names: Sequence[str] = ("C1", "C2")
) -> None:
    """Draw the images of lines along C1 and along C2.

    Args:
        along_first, along_second: (lines, points, 2), the images of lines along C1 and along C2.
        names: of C1 and C2.
    """
    page, (axes,) = figure.figure(1, 1, width=4.8, height=4.8)
    figure.title(axes, title)
    both = [lines.detach().cpu().float() for lines in (along_first, along_second)]
    for lines, colour in zip(both, figure.COLOURS, strict=False):
        axes.add_collection(LineCollection(list(lines.numpy()), colors=colour, linewidths=1.0, alpha=0.8))
    _frame(axes, [lines.reshape(-1, 2) for lines in both])
    _notes(axes, [(f"along {name}", colour) for name, colour in zip(names, figure.COLOURS, strict=False)])
    figure.write(page, path)


def _points(axes: Axes, points: Mapping[str, Tensor], colours: Mapping[str, str]) -> None:
    """Draw points, (n, 2) by name, with larger dots where there are few."""
    for name, values in points.items():
        x, y = values.detach().cpu().unbind(-1)
        size = min(16, max(4, 6000 / len(values)))
        axes.scatter(x, y, s=size, color=colours[name], alpha=0.5, linewidths=0)
    _notes(axes, [(name, colours[name]) for name in points][:12] if len(points) > 1 else [])


def _frame(axes: Axes, points: Sequence[Tensor]) -> None:
    """Set equal scales around all but the outermost thousandth of points, with a margin."""
    values = torch.cat([part.detach().cpu().float() for part in points])
    values = values[values.isfinite().all(-1)]
    if not len(values):
        return
    low, high = values.quantile(0.001, 0), values.quantile(0.999, 0)
    half = 0.65 * max(float((high - low).max()), 1e-6)
    x, y = ((low + high) / 2).tolist()
    axes.set_xlim(x - half, x + half)
    axes.set_ylim(y - half, y + half)
    axes.set_aspect("equal")
    figure.value_axis(axes, "T₂, the data's unit")
    axes.set_xlabel("T₁, the data's unit", fontsize=9, color=figure.TEXT)


def _notes(axes: Axes, texts: Sequence[tuple[str, str]]) -> None:
    """Write coloured words in a column at the upper left."""
    for line, (text, colour) in enumerate(texts):
        axes.annotate(
            text,
            (0.02, 0.985),
            xycoords="axes fraction",
            xytext=(0, -13 * line),
            textcoords="offset points",
            va="top",
            fontsize=9,
            fontweight="bold",
            color=colour,
        )
