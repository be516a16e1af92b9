"""Marginals of data that are no images, as SVG paths.

They are histograms of test data and samples, and points of the plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 40
MOST = 16
"""Dimensions that are shown, from the first on."""

POINTS = 800
"""Points of a scatter plot."""

WIDTH, HEIGHT = 240, 100
"""Of a histogram, in the units of its view box."""


@dataclass(frozen=True)
class Histogram:
    """One dimension of test data and of samples.

    Attributes:
        low, high: what the axis spans.
        test, samples: outlines, as the `d` of an SVG path in a box of `WIDTH` x `HEIGHT`.
        distance: the share of samples that would have to be elsewhere (total variation over the bins), in [0, 1].
    """

    dimension: int
    low: float
    high: float
    test: str
    samples: str
    distance: float


@dataclass(frozen=True)
class Scatter:
    """Two-dimensional test data and samples, as paths of dots.

    They lie in a box of 200 x 200. low, high: what the axes span.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    test: str
    samples: str


def histograms(test: Tensor, samples: Tensor) -> list[Histogram]:
    """Histograms of the first dimensions, (n, *shape) and (m, *shape)."""
    own, drawn = test.flatten(1).double(), samples.flatten(1).double()
    return [_histogram(i, own[:, i], drawn[:, i]) for i in range(min(MOST, own.shape[1]))]


def _histogram(dimension: int, test: Tensor, samples: Tensor) -> Histogram:
    test = test[test.isfinite()]  # a missing value is nan
    low, high = (test.quantile(share).item() for share in (0.002, 0.998)) if len(test) else (0.0, 1.0)
    room = 0.1 * max(high - low, 1e-6)
    low, high = low - room, high + room
    own, drawn = _shares(test, low, high), _shares(samples, low, high)
    top = max(own.max().item(), drawn.max().item(), 1e-9)
    outside = abs((1 - own.sum()) - (1 - drawn.sum())).item()
    distance = 0.5 * ((own - drawn).abs().sum().item() + outside)
    return Histogram(dimension, low, high, _outline(own / top), _outline(drawn / top), distance)


def _shares(values: Tensor, low: float, high: float) -> Tensor:
    """The share of all values in every bin, (BINS,); what is outside is in none."""
    inside = values[values.isfinite() & (values >= low) & (values <= high)]
    return torch.histc(inside, BINS, low, high) / max(len(values), 1)


def _outline(heights: Tensor) -> str:
    """The outline of bars of these heights, in [0, 1]."""
    step = WIDTH / len(heights)
    path = [f"M0 {HEIGHT}"]
    for i, height in enumerate(heights.tolist()):
        y = HEIGHT * (1 - 0.95 * height)
        path.append(f"V{y:.1f}H{(i + 1) * step:.1f}")
    return "".join([*path, f"V{HEIGHT}"])


def scatter(test: Tensor, samples: Tensor) -> Scatter:
    """Points, (n, 2) and (m, 2), in a common square."""
    test = test[test.isfinite().all(1)]
    low, high = test.double().quantile(0.001, 0), test.double().quantile(0.999, 0)
    middle, half = (low + high) / 2, 0.6 * (high - low).max().clamp_min(1e-6)
    start, end = middle - half, middle + half

    def path(points: Tensor) -> str:
        scaled = 200 * (points[:POINTS].double() - start) / (end - start)
        inside = scaled[((scaled >= 0) & (scaled <= 200)).all(1)]
        return "".join(f"M{x:.1f} {200 - y:.1f}h0" for x, y in inside.tolist())

    return Scatter(_pair(start), _pair(end), path(test), path(samples))


def _pair(values: Tensor) -> tuple[float, float]:
    first, second = values.tolist()
    return first, second


def rounded(values: Tensor) -> list[list[float]]:
    """Rows of numbers with four significant digits, (n, dims), for the data of a page."""
    return [[float(f"{value:.4g}") for value in row] for row in values.flatten(1).double().tolist()]
