"""Where the knots of densities of pixels go, from a histogram of grey levels."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

HEAVY = 4.0
"""A level of more pixels than this many times the median level has a trapezoid of its own."""

CLEAR = 1.25
"""A level is off a line between others where one of both is this many times the other."""

EVEN = 0.01
"""Share of the uniform distribution in what is fitted to data."""

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


def knots_of(counts: Tensor, number: int) -> Tensor:
    """Grey levels between which a histogram is about linear.

    The heavy levels are knots. Others, up to half of all, go where the line through those before is furthest from the
    counts, as long as it is off by a factor of `CLEAR` there. So a frequent level gets one, and its two neighbours, and
    is then alone. The rest halves what has most pixels, or most levels.

    Args:
        counts: the histogram, (levels,).
        number: of knots, at least two and at most `levels`.

    Returns:
        (number,), increasing, the first and the last level among them.
    """
    last = len(counts) - 1
    knots = {0, last, *_heavy(counts, most=(number - 1) // 2)}
    while len(knots) < number // 2:
        line = _between(sorted(knots), counts)
        off = torch.where(torch.maximum(counts, line) > CLEAR * torch.minimum(counts, line), (counts - line).abs(), 0)
        if not off.any():
            break
        knots.add(int(off.argmax()))
    ordered = sorted(knots)
    weights = counts / counts.sum().clamp_min(1) + 1 / len(counts)
    for alone in ordered:
        weights[alone] = 0
    while len(ordered) < number:
        gaps = [float(weights[left + 1 : right].sum()) for left, right in pairwise(ordered)]
        left = ordered[max(range(len(gaps)), key=gaps.__getitem__)]
        inside = weights[left + 1 : ordered[ordered.index(left) + 1]].cumsum(0)
        middle = left + 1 + int(torch.searchsorted(inside, inside[-1] / 2))
        weights[middle] = 0
        ordered = sorted([*ordered, middle])
    return torch.tensor(ordered)


def _between(knots: list[int], counts: Tensor) -> Tensor:
    """The counts at knots, and the lines between them, (levels,)."""
    places = torch.tensor(knots)
    level = torch.arange(len(counts))
    first = torch.searchsorted(places[1:-1].contiguous(), level, right=True)
    left, right = places[first], places[first + 1]
    return torch.lerp(counts[left], counts[right], (level - left).to(counts) / (right - left))
