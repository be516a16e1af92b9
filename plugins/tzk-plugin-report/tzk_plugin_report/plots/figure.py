"""The look of every plot: quiet axes, colours for colour-blind readers, no global state."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from PIL import Image

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F4F24", "#000000")
"""After Okabe and Ito (2008), with brown in place of yellow, which vanishes on white."""

TEXT, QUIET = "#333333", "#B8B8B8"


def colours(entities: Iterable[str]) -> dict[str, str]:
    """Colours of entities in order of appearance, cyclic; that of text for ""."""
    names = [name for name in dict.fromkeys(entities) if name]
    return {"": TEXT} | {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def figure(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A white page of panels, and its axes row by row.

    Args:
        width, height: of one panel, in inches.
    """
    size = (columns * width, rows * height)
    page = Figure(figsize=size, dpi=120, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(page)
    panels = list(page.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(QUIET)
        axes.tick_params(colors=TEXT, labelsize=9, color=QUIET)
        axes.title.set_color(TEXT)
    return page, panels


def title(axes: Axes, text: str) -> None:
    """Write the title of a panel."""
    axes.set_title(text, loc="left", fontsize=11, color=TEXT)


def count_axis(axes: Axes, label: str) -> None:
    """Label the horizontal axis, with few ticks, all at whole numbers."""
    axes.set_xlabel(label, fontsize=9, color=TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def value_axis(axes: Axes, unit: str) -> None:
    """Label the vertical axis with its unit."""
    axes.set_ylabel(unit, fontsize=9, color=TEXT)


def log_axis(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers at its ticks."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)


def note(axes: Axes, text: str) -> None:
    """Write a small remark in the upper right corner."""
    axes.text(0.98, 0.99, text, transform=axes.transAxes, ha="right", va="top", fontsize=8, color="#777777")


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
    """Write the name of every line beside its last value, without overlaps.

    Call this when the limits of the axes are final.

    Args:
        ends: of each line the text, the last value and the colour.
    """
    if not ends:
        return
    figure_height = axes.figure.get_size_inches()[1] * axes.get_position().height  # type: ignore[union-attr]
    needed = 0.16 / max(figure_height, 0.5)
    order = sorted(range(len(ends)), key=lambda i: ends[i][1])
    values = np.array([ends[i][1] for i in order])
    pixels = axes.transData.transform(np.column_stack([np.zeros_like(values), values]))
    wanted = np.clip(axes.transAxes.inverted().transform(pixels)[:, 1], 0, 1)
    for i, height in zip(order, _apart(wanted, needed), strict=True):
        text, _, colour = ends[i]
        axes.annotate(
            text,
            (1, height),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
        )


def _apart(wanted: np.ndarray, needed: float) -> np.ndarray:
    """Positions near the ascending `wanted`, at least `needed` apart; close ones share a centre."""
    runs: list[list[float]] = []  # the sum of (wanted - offset in the run), and the number of members
    for height in wanted:
        runs.append([float(height), 1])
        while len(runs) > 1 and runs[-2][0] / runs[-2][1] + runs[-2][1] * needed > runs[-1][0] / runs[-1][1]:
            total, members = runs.pop()
            runs[-1][0] += total - members * runs[-1][1] * needed
            runs[-1][1] += members
    return np.concatenate([total / members + needed * np.arange(members) for total, members in runs])


def write(page: Figure, path: Path) -> None:
    """Write a PNG of at most 256 colours, at a third of the size."""
    with io.BytesIO() as file:
        page.savefig(file, format="png")
        file.seek(0)
        image = Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        image.save(path, "PNG", optimize=True)
