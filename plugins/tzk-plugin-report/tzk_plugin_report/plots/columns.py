"""Pictures of tables: columns, pairs of columns, and densities in one or two dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from tzk_plugin_report.plots import figure

MOST_MARGINALS, MOST_PAIRS = 24, 6
BINS = 40
FINE = 161
"""Points along an axis of the density."""


def marginals(observed: Tensor, samples: Mapping[str, Tensor], path: Path, *, names: Sequence[str]) -> None:
    """Draw a histogram of every column, up to `MOST_MARGINALS`.

    Test data are filled, samples are lines by name.

    Args:
        observed: (n, d). samples: (m, d) by name.
        names: of the d columns.
    """
    shown = min(observed.shape[1], MOST_MARGINALS)
    across = min(4, shown)
    page, panels = figure.figure(-(-shown // across), across, width=2.7, height=2.1)
    colours = figure.colours(samples)
    for column, axes in enumerate(panels):
        if column >= shown:
            axes.set_visible(False)
            continue
        figure.title(axes, names[column])
        edges = _edges([observed[:, column]])
        _histogram(axes, observed[:, column], edges, color=figure.QUIET, filled=True)
        for name, values in samples.items():
            _histogram(axes, values[:, column], edges, color=colours[name], filled=False)
        axes.set_yticks([])
    _legend(panels[0], {"test data": figure.QUIET} | {name: colours[name] for name in samples})
    figure.write(page, path)


def pairs(observed: Tensor, samples: Tensor, path: Path, *, names: Sequence[str], title: str) -> None:
    """Draw every pair of the first `MOST_PAIRS` columns, samples over test data.

    Every column by itself is on the diagonal.

    Args:
        observed: (n, d). samples: (m, d). names: of the d columns.
    """
    shown = min(observed.shape[1], MOST_PAIRS)
    page, panels = figure.figure(shown, shown, width=1.9, height=1.9)
    limits = [_edges([observed[:, column]]) for column in range(shown)]
    for position, axes in enumerate(panels):
        row, column = divmod(position, shown)
        axes.tick_params(labelsize=6)
        if column > row:
            axes.set_visible(False)
            continue
        axes.set_xlim(limits[column][0], limits[column][-1])
        if row == column:
            _histogram(axes, observed[:, row], limits[row], color=figure.QUIET, filled=True)
            _histogram(axes, samples[:, row], limits[row], color=figure.COLOURS[0], filled=False)
            axes.set_yticks([])
        else:
            for values, colour in ((observed, figure.QUIET), (samples, figure.COLOURS[0])):
                x, y = values[:, column].cpu(), values[:, row].cpu()
                axes.scatter(x, y, s=5, color=colour, alpha=0.6, linewidths=0)
            axes.set_ylim(limits[row][0], limits[row][-1])
        if row == shown - 1:
            axes.set_xlabel(names[column], fontsize=8, color=figure.TEXT)
        if column == 0 and row:
            axes.set_ylabel(names[row], fontsize=8, color=figure.TEXT)
    _legend(panels[0], {"test data": figure.QUIET, title: figure.COLOURS[0]})
    figure.write(page, path)


def density(
    log_prob: Callable[[Tensor], Tensor], observed: Tensor, path: Path, *, names: Sequence[str], title: str
) -> None:
    """Draw p(T) over one or two columns, with test data.

    Args:
        log_prob: of points, (n, d), in nats, (n,).
        observed: (n, d), d being 1 or 2. names: of the columns.
    """
    page, (axes,) = figure.figure(1, 1, width=4.8, height=4.4)
    figure.title(axes, title)
    frames = [_edges([column]) for column in observed.T]
    lines = [torch.linspace(float(edges[0]), float(edges[-1]), FINE) for edges in frames]
    points = torch.cartesian_prod(*lines).view(-1, len(lines))
    with torch.no_grad():
        values = log_prob(points.to(observed)).exp().nan_to_num(0.0).cpu().double()
    axes.set_xlabel(names[0], fontsize=9, color=figure.TEXT)
    if len(lines) == 1:
        _histogram(axes, observed[:, 0], _edges([observed[:, 0]]), color=figure.QUIET, filled=True)
        axes.plot(lines[0].numpy(), values.numpy(), color=figure.COLOURS[0])
    else:
        axes.set_ylabel(names[1], fontsize=9, color=figure.TEXT)
        axes.pcolormesh(
            *(line.numpy() for line in lines),
            values.view(FINE, FINE).T.numpy(),
            cmap="Blues",
            shading="nearest",
            rasterized=True,
        )
        x, y = observed.cpu().T
        axes.scatter(x, y, s=3, color=figure.COLOURS[1], alpha=0.5, linewidths=0)
    figure.write(page, path)


def _edges(columns: Sequence[Tensor]) -> np.ndarray:
    """Edges of bins around all but the outermost thousandth of values, with a margin."""
    values = torch.cat([column.detach().cpu().double() for column in columns])
    values = values[values.isfinite()]
    low, high = (values.quantile(share).item() for share in (0.001, 0.999)) if len(values) else (0.0, 1.0)
    margin = 0.1 * max(high - low, 1e-9)
    return np.linspace(low - margin, high + margin, BINS + 1)


def _histogram(axes: Axes, values: Tensor, edges: np.ndarray, *, color: str, filled: bool) -> None:
    """A histogram whose area is the share of values within the edges."""
    finite = values.detach().cpu().double().numpy()
    counts, _ = np.histogram(finite[np.isfinite(finite)], edges)
    heights = counts / max(len(finite), 1) / np.diff(edges)
    axes.stairs(heights, edges, color=color, fill=filled, alpha=0.7 if filled else 1.0)


def _legend(axes: Axes, colours: Mapping[str, str]) -> None:
    """Write names in their colours in a corner."""
    for line, (name, colour) in enumerate(colours.items()):
        text = "#777777" if colour == figure.QUIET else colour
        axes.annotate(
            name,
            (0.03, 0.97),
            xycoords="axes fraction",
            xytext=(0, -10 * line),
            textcoords="offset points",
            va="top",
            fontsize=7,
            fontweight="bold",
            color=text,
        )
