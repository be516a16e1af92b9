"""Monotone rational-quadratic splines with linear tails (Durkan et al. 2019), as one graph without masks."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tzk_plugin_glow.elementwise import ElementMap


class SplineMap(ElementMap):
    """A spline of `bins` rational-quadratic pieces on [-tail, tail], the identity outside, smooth at the seams.

    Parameters are widths and heights of the bins before a softmax and slopes at the inner knots before a softplus. No
    bin is narrower or lower than `minimum` of the interval, no slope less than `minimum`. Zeros are the identity.
    """

    def __init__(self, bins: int = 8, tail: float = 5.0, minimum: float = 1e-3) -> None:
        self.bins, self.tail, self.minimum = bins, tail, minimum
        self.count = 3 * bins - 1

    def forward(self, inputs: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = inputs.clamp(-self.tail, self.tail)
        left, width, bottom, height, slope, next_slope = self._bin(inside, parameters, by_height=False)
        place = (inside - left) / width
        across = place * (1 - place)
        mean = height / width
        excess = slope + next_slope - 2 * mean
        below = mean + excess * across
        outputs = bottom + height * (mean * place.square() + slope * across) / below
        log_slope = _log_slope(place, across, mean, slope, next_slope, below)
        within = inputs.abs() < self.tail
        return torch.where(within, outputs, inputs), torch.where(within, log_slope, 0.0)

    def inverse(self, outputs: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = outputs.clamp(-self.tail, self.tail)
        left, width, bottom, height, slope, next_slope = self._bin(inside, parameters, by_height=True)
        mean = height / width
        excess = slope + next_slope - 2 * mean
        rise = inside - bottom
        a = height * (mean - slope) + rise * excess
        b = height * slope - rise * excess
        c = -mean * rise
        place = (-2 * c / (b + (b.square() - 4 * a * c).clamp_min(0).sqrt())).clamp(0, 1)
        across = place * (1 - place)
        log_slope = _log_slope(place, across, mean, slope, next_slope, mean + excess * across)
        within = outputs.abs() < self.tail
        return torch.where(within, left + width * place, outputs), torch.where(within, -log_slope, 0.0)

    def _bin(self, values: Tensor, parameters: Tensor, by_height: bool) -> tuple[Tensor, ...]:
        """Left, width, bottom, height and both slopes of the bin that holds each value."""
        raw_widths, raw_heights, raw_slopes = parameters.split((self.bins, self.bins, self.bins - 1), 1)
        widths, lefts = self._knots(raw_widths)
        heights, bottoms = self._knots(raw_heights)
        offset = math.log(math.expm1(1 - self.minimum))  # zeros give slopes of 1, those of the tails
        inner = self.minimum + functional.softplus(raw_slopes + offset)
        ones = torch.ones_like(inner[:, :1])
        slopes = torch.cat([ones, inner, ones], 1)
        knots = bottoms if by_height else lefts
        index = (values.unsqueeze(1) >= knots[:, 1:]).sum(1, keepdim=True)
        here = [each.gather(1, index).squeeze(1) for each in (lefts, widths, bottoms, heights)]
        return *here, slopes.gather(1, index).squeeze(1), slopes.gather(1, index + 1).squeeze(1)

    def _knots(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Sizes of the bins, and where each begins."""
        shares = self.minimum + (1 - self.bins * self.minimum) * functional.softmax(raw, 1)
        sizes = 2 * self.tail * shares
        return sizes, sizes.cumsum(1) - sizes - self.tail


def _log_slope(
    place: Tensor, across: Tensor, mean: Tensor, slope: Tensor, next_slope: Tensor, below: Tensor
) -> Tensor:
    above = next_slope * place.square() + 2 * mean * across + slope * (1 - place).square()
    return 2 * mean.log() + above.log() - 2 * below.log()
