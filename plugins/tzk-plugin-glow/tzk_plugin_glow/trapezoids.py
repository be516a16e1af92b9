"""Where the knots of quadratic splines go, from a histogram of grey levels."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

HEAVY = 4.0
"""A level of more pixels than this many times the median level has a trapezoid of its own."""

Top = tuple[float, float]
"""The ends of the top of a trapezoid, in grey levels; of a triangle they are equal."""


def histogram(values: Tensor, levels: int) -> Tensor:
    """How many values in [0, 1] are of each grey level, (levels,) in float64."""
    level = (values * levels).long().clamp(0, levels - 1)
    return torch.bincount(level.flatten(), minlength=levels).double().cpu()


def tops_of(counts: Tensor, components: int, ramp: float) -> Tensor:
    """The tops of trapezoids, in [0, 1].

    A heavy level has a top as wide as the level is. The levels between heavy ones have triangles, or one trapezoid
    where there are too few. The tops of triangles are at quantiles of a mixture, half uniform, half the histogram.

    Args:
        counts: the histogram, (levels,).
        components: how many trapezoids, two or more.
        ramp: the length of a ramp at a heavy level, in grey levels.

    Returns:
        (components, 2), increasing.
    """
    levels = len(counts)
    heavy = _heavy(counts, most=(components - 1) // 2)
    edges = [-1, *heavy, levels]
    runs = [(before + 1, after) for before, after in pairwise(edges) if after - before > 1]
    light = counts.clone()
    light[heavy] = 0
    weights = light / light.sum().clamp_min(1) + 1 / levels
    numbers = _divided(components - len(heavy), [weights[slice(*run)].sum().item() for run in runs])
    tops = _heavy_tops(heavy, counts, ramp)
    for (start, stop), number in zip(runs, numbers, strict=True):
        ends = start + ramp * (start > 0), stop - ramp * (stop < levels)
        tops += _light_tops(weights[start:stop], ends, number)
    return torch.tensor(sorted(tops), dtype=torch.float64) / levels


def _heavy(counts: Tensor, most: int) -> list[int]:
    """The heavy levels, in order, the `most` heaviest of them."""
    least = max(HEAVY * counts.median().item(), 0.5 * counts.mean().item())
    found = [level for level in counts.argsort(descending=True).tolist()[:most] if counts[level] > least]
    return sorted(found)


def _heavy_tops(heavy: list[int], counts: Tensor, ramp: float) -> list[Top]:
    """Tops of heavy levels; of two neighbours the lighter one leaves room for the ramp."""
    tops = {level: (float(level), level + 1.0) for level in heavy}
    for left, right in pairwise(heavy):
        if right == left + 1 and counts[left] < counts[right]:
            tops[left] = (tops[left][0], right - ramp)
        elif right == left + 1:
            tops[right] = (right + ramp, right + 1.0)
    return list(tops.values())


def _divided(number: int, masses: list[float]) -> list[int]:
    """The number of trapezoids of each run of levels, by its mass, at least one."""
    numbers = [1] * len(masses)
    for _ in range(number - len(masses)):
        neediest = max(range(len(masses)), key=lambda run: masses[run] / numbers[run])
        numbers[neediest] += 1
    return numbers


def _light_tops(weights: Tensor, ends: Top, number: int) -> list[Top]:
    """Tops of triangles at quantiles of the weights, or one from end to end."""
    if number == 1:
        return [ends]
    cdf = torch.cat([weights.new_zeros(1), weights.cumsum(0) / weights.sum()])
    shares = torch.linspace(0, 1, number, dtype=cdf.dtype)[1:-1]
    level = torch.searchsorted(cdf, shares, right=True) - 1
    place = (level + (shares - cdf[level]) / (cdf[level + 1] - cdf[level])) / len(weights)
    points = [ends[0], *(ends[0] + place * (ends[1] - ends[0])).tolist(), ends[1]]
    return [(point, point) for point in points]
