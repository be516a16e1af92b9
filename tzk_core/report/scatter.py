"""Two-dimensional data: points of the data beside points of the model, and where C takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Tensor

from tzk_core.report import figure


def beside(observed: Mapping[str, Tensor], drawn: Mapping[str, Tensor], path: Path, title: str) -> None:
    """`observed` test points, (n, 2) by name, to the left of `drawn` samples, by name: one colour a name."""
    page, panels = figure.figure(1, 2, 4.4, 4.4)
    colours = figure.colours([*observed, *drawn])
    for axes, points, text in zip(panels, (observed, drawn), ("test data", f"samples: {title}"), strict=True):
        figure.title(axes, text)
        _points(axes, points, colours)
        _frame(axes, list(observed.values()))
    figure.write(page, path)


def alone(drawn: Mapping[str, Tensor], path: Path, title: str) -> None:
    """Samples, (n, 2) by name, and nothing beside them: one colour a name."""
    page, (axes,) = figure.figure(1, 1, 4.8, 4.8)
    figure.title(axes, title)
    _points(axes, drawn, figure.colours([*drawn]))
    _frame(axes, list(drawn.values()))
    figure.write(page, path)


def moved(before: Tensor, after: Tensor, path: Path, title: str) -> None:
    """A line from each of the points `before`, (n, 2), to what it becomes in `after`, a dot."""
    page, (axes,) = figure.figure(1, 1, 4.8, 4.8)
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
    """Where lines along C1, `along_first`, and along C2, `along_second`, come to lie: (lines, points, 2). `names` are
    what these two are called."""
    page, (axes,) = figure.figure(1, 1, 4.8, 4.8)
    figure.title(axes, title)
    both = [lines.detach().cpu().float() for lines in (along_first, along_second)]
    for lines, colour in zip(both, figure.COLOURS, strict=False):
        axes.add_collection(LineCollection(list(lines.numpy()), colors=colour, linewidths=1.0, alpha=0.8))
    _frame(axes, [lines.reshape(-1, 2) for lines in both])
    _notes(axes, [(f"along {name}", colour) for name, colour in zip(names, figure.COLOURS, strict=False)])
    figure.write(page, path)


def _points(axes: Axes, points: Mapping[str, Tensor], colours: Mapping[str, str]) -> None:
    """Each set of points, (n, 2) by name, in its colour; larger dots where there are few."""
    for name, values in points.items():
        x, y = values.detach().cpu().unbind(-1)
        size = min(16, max(4, 6000 / len(values)))
        axes.scatter(x, y, s=size, color=colours[name], alpha=0.5, linewidths=0)
    _notes(axes, [(name, colours[name]) for name in points][:12] if len(points) > 1 else [])


def _frame(axes: Axes, points: Sequence[Tensor]) -> None:
    """Equal scales around `points`, less the outermost thousandth, with room to see what lies beyond."""
    values = torch.cat([each.detach().cpu().float() for each in points])
    values = values[values.isfinite().all(-1)]
    if not len(values):
        return
    low, high = values.quantile(0.001, 0), values.quantile(0.999, 0)
    half = 0.65 * max(float((high - low).max()), 1e-6)
    x, y = ((low + high) / 2).tolist()
    axes.set_xlim(x - half, x + half)
    axes.set_ylim(y - half, y + half)
    axes.set_aspect("equal")


def _notes(axes: Axes, texts: Sequence[tuple[str, str]]) -> None:
    """Words in the colour of what they name, in a column at the upper left."""
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
