"""Monotone rational-quadratic splines with linear tails (Durkan et al. 2019), without masks."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tzk_plugin_glow.elementwise import ElementMap


class Bin(NamedTuple):
    """Bins of values, and the slopes at both knots, in the shape of the values."""

    left: Tensor
    width: Tensor
    bottom: Tensor
    height: Tensor
    slope: Tensor
    next_slope: Tensor


class SplineMap(ElementMap):
    """A spline of rational-quadratic pieces on [-tail, tail], the identity outside.

    It is smooth at both ends. Parameters are widths and heights of the bins before a softmax and slopes at the inner
    knots before a softplus. Zeros are the identity.

    bins: how many pieces.
    minimum: the least width and height of a bin, as a share of the interval, and the least slope.
    """

    def __init__(self, bins: int = 8, tail: float = 5.0, minimum: float = 1e-3) -> None:
        self.bins, self.tail, self.minimum = bins, tail, minimum
        self.count = 3 * bins - 1

    def forward(self, inputs: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = inputs.clamp(-self.tail, self.tail)
        piece = self._bin(inside, parameters, by_height=False)
        place = (inside - piece.left) / piece.width
        across = place * (1 - place)
        mean = piece.height / piece.width
        excess = piece.slope + piece.next_slope - 2 * mean
        denominator = mean + excess * across
        outputs = piece.bottom + piece.height * (mean * place.square() + piece.slope * across) / denominator
        log_slope = _log_slope(piece, place, across=across, mean=mean, denominator=denominator)
        within = inputs.abs() < self.tail
        return torch.where(within, outputs, inputs), torch.where(within, log_slope, 0.0)

    def inverse(self, outputs: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = outputs.clamp(-self.tail, self.tail)
        piece = self._bin(inside, parameters, by_height=True)
        mean = piece.height / piece.width
        excess = piece.slope + piece.next_slope - 2 * mean
        rise = inside - piece.bottom
        a = piece.height * (mean - piece.slope) + rise * excess
        b = piece.height * piece.slope - rise * excess
        c = -mean * rise
        place = (-2 * c / (b + (b.square() - 4 * a * c).clamp_min(0).sqrt())).clamp(0, 1)
        across = place * (1 - place)
        log_slope = _log_slope(piece, place, across=across, mean=mean, denominator=mean + excess * across)
        within = outputs.abs() < self.tail
        return torch.where(within, piece.left + piece.width * place, outputs), torch.where(within, -log_slope, 0.0)

    def _bin(self, values: Tensor, parameters: Tensor, *, by_height: bool) -> Bin:
        """The bins of values, which are outputs with `by_height`, else inputs."""
        raw_widths, raw_heights, raw_slopes = parameters.split((self.bins, self.bins, self.bins - 1), 1)
        widths, lefts = self._knots(raw_widths)
        heights, bottoms = self._knots(raw_heights)
        offset = math.log(math.expm1(1 - self.minimum))  # zeros give slopes of 1, those of the tails
        inner = self.minimum + functional.softplus(raw_slopes + offset)
        ones = torch.ones_like(inner[:, :1])
        slopes = torch.cat([ones, inner, ones], 1)
        knots = bottoms if by_height else lefts
        index = (values.unsqueeze(1) >= knots[:, 1:]).sum(1, keepdim=True)
        left, width, bottom, height, slope = (
            values.gather(1, index).squeeze(1) for values in (lefts, widths, bottoms, heights, slopes)
        )
        return Bin(left, width, bottom, height, slope, slopes.gather(1, index + 1).squeeze(1))

    def _knots(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Sizes of the bins, and their left or bottom knots."""
        shares = self.minimum + (1 - self.bins * self.minimum) * functional.softmax(raw, 1)
        sizes = 2 * self.tail * shares
        return sizes, sizes.cumsum(1) - sizes - self.tail


def _log_slope(piece: Bin, place: Tensor, *, across: Tensor, mean: Tensor, denominator: Tensor) -> Tensor:
    """Logarithm of the derivative at `place` in [0, 1] (Durkan et al. 2019, Eq. 5)."""
    numerator = piece.next_slope * place.square() + 2 * mean * across + piece.slope * (1 - place).square()
    return 2 * mean.log() + numerator.log() - 2 * denominator.log()
