"""Pixels to Gaussians by quadratic splines: a smooth density, whose knots come from data."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tzk_core.errors import TzkError
from tzk_plugin_glow.fitted import FittedMap
from tzk_plugin_glow.knots import EVEN, tops_of
from tzk_plugin_glow.pixels import FLOOR, Cumulative
from tzk_plugin_glow.shares import around, gather, sums

RAMP = 1 / 64
"""Length of the ramps of levels that have trapezoids of their own, in grey levels. Half of it is lost: log(1 + 1/128)
nats for every pixel of such a level between others that are rare."""


class _Place(NamedTuple):
    """Where values are, in the shape of the values.

    piece: the number of the knot before.
    length: to the next knot.
    place: in [0, 1] on the way there.
    first, second: the trapezoids whose tops end at the two knots.
    """

    piece: Tensor
    length: Tensor
    place: Tensor
    first: Tensor
    second: Tensor


class QuadraticMap(FittedMap):
    """z = Φ⁻¹(F(T)) with the density of F a mixture of trapezoids on [0, 1].

    Parameters are the logits of their shares, less those of the shares in the data. Neighbours overlap in their ramps
    and nowhere else. So the density is continuous and linear between knots, and F is a quadratic spline (Müller et al.
    2019, "Neural importance sampling", Section 4.3), whose inverse is closed. A share of `FLOOR` is uniform.

    The knots are shared by all pixels. `fit` sets them from data (see `knots.tops_of`): what images have much of,
    such as the darkest level, has a trapezoid of its own, with a short ramp outside of it. That takes the place of a
    stretch of the grey levels which makes the narrow interval wide.

    components: how many trapezoids.
    ramp: the length of the ramps of levels that have trapezoids of their own, in grey levels.
    """

    knots: Tensor
    shares: Tensor

    def __init__(self, components: int, levels: int, ramp: float = RAMP) -> None:
        super().__init__(levels)
        if components < 2:
            raise TzkError(f"a spline has at least two trapezoids; got {components}")
        if not 0 < ramp <= 0.5:
            raise TzkError(f"ramp is expected above 0 and at most 0.5 grey levels; got {ramp}")
        self.count, self.ramp = components, ramp
        # of trapezoid i, the ends of its top are knots 2i and 2i + 1; of a triangle they are one
        self.register_buffer("knots", torch.linspace(0, 1, components).repeat_interleave(2))
        self.register_buffer("shares", self._areas()[0].clone())
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def _take(self, counts: Tensor) -> None:
        self.knots.copy_(tops_of(counts, self.count, self.ramp).flatten())
        masses = (counts / counts.sum()).to(self.knots)
        at = self._locate((torch.arange(self.levels).to(self.knots) + 0.5) / self.levels)
        self.shares.copy_(self._areas()[0] * EVEN)
        self.shares.index_add_(0, at.first, (1 - EVEN) * masses * (1 - at.place))
        self.shares.index_add_(0, at.second, (1 - EVEN) * masses * at.place)

    def features(self, values: Tensor) -> Tensor:
        x = values * self.levels
        dark = ((1 + self.ramp - x) / self.ramp).clamp(0, 1)
        bright = ((x - self.levels + 1 + self.ramp) / self.ramp).clamp(0, 1)
        return torch.cat([2 * values - 1, dark, bright], 1)

    def cumulative(self, values: Tensor, parameters: Tensor) -> Cumulative:
        areas, below_knot = self._areas()
        shares = self._shares(parameters, areas)
        piece, length, place, first, second = self._locate(values)
        before, at_left, at_right, after = around(shares, first, second)
        low, high = at_left / areas[first], at_right / areas[second]
        rest = 1 - place
        cdf = before + at_left * below_knot[piece]
        survival = after + at_right * (1 - below_knot[piece + 1])
        half = (high - low) / 2
        return Cumulative(
            torch.log(low * rest + high * place),
            cdf + length * place * (low + half * place),
            survival + length * rest * (high - half * rest),
        )

    def quantile(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        areas, below_knot = self._areas()
        shares = self._shares(parameters, areas)
        before, after = sums(shares)
        doubled, part = shares.repeat_interleave(2, 1), below_knot.view(-1, *[1] * (z.dim() - 1))
        cdf = before.repeat_interleave(2, 1) + doubled * part
        survival = after.repeat_interleave(2, 1) + doubled * (1 - part)
        target, rest = torch.special.ndtr(z), torch.special.ndtr(-z)
        lower = (z < 0).unsqueeze(1)
        reached = torch.where(lower, cdf <= target.unsqueeze(1), survival >= rest.unsqueeze(1))
        piece = reached[:, 1:-1].sum(1)
        rise = torch.where(z < 0, target - gather(cdf, piece), gather(survival, piece) - rest).clamp_min(0)
        first, second = piece // 2, (piece + 1) // 2
        low, high = gather(shares, first) / areas[first], gather(shares, second) / areas[second]
        left, right = self.knots[piece], self.knots[piece + 1]
        length = right - left
        slope = (high - low) / length.clamp_min(torch.finfo(z.dtype).tiny)
        root = (low.square() + 2 * slope * rise).clamp_min(0).sqrt()
        step = torch.minimum(2 * rise / (low + root), length)
        return left + step, torch.log(low + slope * step)

    def _locate(self, values: Tensor) -> _Place:
        piece = torch.searchsorted(self.knots[1:-1], values.detach().contiguous(), right=True)
        left = self.knots[piece]
        length = self.knots[piece + 1] - left
        place = (values - left) / length.clamp_min(torch.finfo(values.dtype).tiny)
        return _Place(piece, length, place, piece // 2, (piece + 1) // 2)

    def _shares(self, parameters: Tensor, areas: Tensor) -> Tensor:
        """The shares of the trapezoids, of which `FLOOR` makes a uniform density."""
        every = [-1, *[1] * (parameters.dim() - 2)]
        shares = functional.softmax(parameters + self.shares.log().view(every), 1)
        return (1 - FLOOR) * shares + FLOOR * areas.view(every)

    def _areas(self) -> tuple[Tensor, Tensor]:
        """The areas of trapezoids of height 1, and the parts of them below their knots.

        Returns:
            (count,) and (2 count,), the latter in the order of the knots.
        """
        gaps = self.knots.diff()
        ramps = functional.pad(gaps[1::2], (1, 1)) / 2
        areas = ramps[:-1] + gaps[::2] + ramps[1:]
        below = torch.stack([ramps[:-1] / areas, 1 - ramps[1:] / areas], 1).flatten()
        return areas, below
