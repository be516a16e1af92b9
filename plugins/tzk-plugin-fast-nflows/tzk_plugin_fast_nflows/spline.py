"""Monotone rational-quadratic splines (Durkan et al. 2019), as nflows has them but without boolean indexing.

nflows gathers the elements inside the tails and scatters them back. Here all elements are computed, those outside at
the nearest knot, and a choice by element follows. So shapes depend on no value: one graph, and `torch.func.vmap` works.

Parameters come first in all tables, elements last. torch takes 20 times as long for a softmax over rows of 8 numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Spline:
    """What nflows' layers say about their splines.

    tails: "linear" for the identity outside of [-bound, bound]; None for a spline on [0, 1] alone.
    minimum: the least width and height of a bin, as a share of the interval.
    scale: of unconstrained widths and heights.
    """

    bins: int
    tails: str | None
    bound: float
    minimum: tuple[float, float]
    least_slope: float
    scale: float = 1.0

    @classmethod
    def of(cls, layer: Transform, bins: int, network: nn.Module | None = None) -> Spline:
        """As a layer of nflows has it.

        nflows divides sizes by the root of a network's width, where it tells one.

        Raises:
            ValueError: if bins of the least size do not fit in the interval.
        """
        width = getattr(network, "hidden_features", getattr(network, "hidden_channels", 1))
        minimum = (layer.min_bin_width, layer.min_bin_height)
        if bins * max(minimum) > 1:
            raise ValueError(f"{bins} bins of at least {max(minimum)} of the interval do not fit in it")
        return cls(bins, layer.tails, layer.tail_bound, minimum, layer.min_derivative, 1 / math.sqrt(width))

    @property
    def interval(self) -> tuple[float, float]:
        return (0.0, 1.0) if self.tails is None else (-self.bound, self.bound)

    @property
    def shares(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of widths and of heights, the least size and the rest, which a softmax divides."""
        low, high = self.interval
        width, height = (((high - low) * least, (high - low) * (1 - self.bins * least)) for least in self.minimum)
        return width, height

    @property
    def end(self) -> float:
        """The slope of linear tails, which is 1, before its softplus."""
        return math.log(math.expm1(1 - self.least_slope))


class Piece(NamedTuple):
    """The bin of every element, (elements,) each.

    slopes: at both of its knots, (2, elements).
    """

    left: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor
    slopes: Tensor


class Terms(NamedTuple):
    """The terms of the spline and its derivatives, (elements,) each.

    The equations are 4 and 5 of Durkan et al. (2019).

    place: θ in [0, 1] within the bin. mean: the bin's mean slope, s. across: θ (1 - θ). excess: d_k + d_k+1 - 2 s.
    The value is bottom + height `numerator` / `denominator`, the slope (s / `denominator`)² `rise`.
    """

    place: Tensor
    mean: Tensor
    across: Tensor
    excess: Tensor
    numerator: Tensor
    denominator: Tensor
    rise: Tensor


def evaluate(
    values: Tensor, parameters: Tensor, inside: Tensor, *, spline: Spline, inverse: bool
) -> tuple[Tensor, Tensor]:
    """The spline, or its inverse, by torch's operations alone.

    Args:
        values: (elements,).
        parameters: (elements, 2 bins + slopes).
        inside: (elements,), whether in the spline's interval.

    Returns:
        Outputs and log-derivatives, (elements,) each.
    """
    low, _ = spline.interval
    within = torch.where(inside, values, low)  # clamp has no gradient at the bounds themselves
    rows = parameters.t()
    sizes = rows[: 2 * spline.bins].unflatten(0, (2, spline.bins))
    probabilities = functional.softmax(sizes * spline.scale, 1)
    shares = torch.stack([least + more * row for (least, more), row in zip(spline.shares, probabilities, strict=True)])
    knots = functional.pad(low + shares[:, :-1].cumsum(1), (0, 0, 1, 0), value=low)
    index = bin_of(within, knots[int(inverse)])
    (left, bottom), (width, height) = (table.gather(1, index.expand(2, 1, -1)).squeeze(1) for table in (knots, shares))
    slopes = rows[2 * spline.bins :]
    if spline.tails is not None:
        slopes = functional.pad(slopes, (0, 0, 1, 1), value=spline.end)
    found = slopes.gather(0, torch.stack([index, index + 1]))
    piece = Piece(left, bottom, width, height, functional.softplus(found) + spline.least_slope)
    outputs, log_slope, _ = of_piece(within, piece, inverse=inverse)
    return outside(values, outputs, log_slope, inside=inside, spline=spline)


def bin_of(values: Tensor, knots: Tensor) -> Tensor:
    """The number of every element's bin, from the knots at which bins begin, (bins, elements)."""
    return (values >= knots[1:]).sum(0)


def of_piece(values: Tensor, piece: Piece, *, inverse: bool) -> tuple[Tensor, Tensor, Terms]:
    """Outputs and log-derivatives of elements in the interval."""
    place = _solved(values, piece) if inverse else (values - piece.left) / piece.width
    terms = terms_of(piece, place)
    log_slope = (terms.rise * (terms.mean / terms.denominator).square()).log()
    if inverse:
        return torch.addcmul(piece.left, piece.width, place), -log_slope, terms
    return torch.addcmul(piece.bottom, piece.height, terms.numerator / terms.denominator), log_slope, terms


def outside(
    values: Tensor, outputs: Tensor, log_slope: Tensor, *, inside: Tensor, spline: Spline
) -> tuple[Tensor, Tensor]:
    """The identity in the tails; nan where there are none."""
    if spline.tails is None:
        return torch.where(inside, outputs, torch.nan), torch.where(inside, log_slope, torch.nan)
    return torch.where(inside, outputs, values), torch.where(inside, log_slope, 0.0)


def terms_of(piece: Piece, place: Tensor) -> Terms:
    """The terms at a place in [0, 1] of every element's bin."""
    mean, excess = _curvature(piece)
    slope, next_slope = piece.slopes
    left, squared = 1 - place, place.square()
    across = place * left
    numerator = torch.addcmul(slope * across, mean, squared)
    denominator = torch.addcmul(mean, excess, across)
    rise = torch.addcmul(next_slope * squared, slope, left.square())
    return Terms(place, mean, across, excess, numerator, denominator, torch.addcmul(rise, mean, across, value=2))


def _curvature(piece: Piece) -> tuple[Tensor, Tensor]:
    """`mean` and `excess` of `Terms`."""
    mean = piece.height / piece.width
    return mean, torch.sub(piece.slopes[0] + piece.slopes[1], mean, alpha=2)


def _solved(outputs: Tensor, piece: Piece) -> Tensor:
    """The place of an output in its bin (Durkan et al. 2019, Eq. 6)."""
    mean, excess = _curvature(piece)
    rise = outputs - piece.bottom
    curved = rise * excess
    a = torch.addcmul(curved, piece.height, mean - piece.slopes[0])
    b = piece.height * piece.slopes[0] - curved
    c = mean * rise
    return 2 * c / (b + torch.addcmul(b.square(), a, c, value=4).clamp_min(0).sqrt())
