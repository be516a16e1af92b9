"""Grey levels to Gaussians by a histogram that is linear between levels chosen from data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from tzk_core.errors import TzkError
from tzk_plugin_glow.fitted import FittedMap
from tzk_plugin_glow.greys import Cell, GreyLevelMap
from tzk_plugin_glow.knots import EVEN, knots_of
from tzk_plugin_glow.pixels import FLOOR
from tzk_plugin_glow.shares import around, gather, sums

FLAGS = 8
"""The most frequent grey levels, which networks are told apart from all others."""


@dataclass(frozen=True)
class _Shares:
    """Shares of the components of every pixel, and what levels are of them.

    shares: (batch, count, c, h, w).
    first: (levels,), the number of the first of the two components that a level may be of.
    mass, below: (2, levels), the parts of these two that are of this level, and of darker ones.
    """

    shares: Tensor
    first: Tensor
    mass: Tensor
    below: Tensor

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor]:
        """The sums of shares before and after each component, for searches."""
        return sums(self.shares)


class GreyShares(FittedMap, GreyLevelMap):
    """Grey levels with a probability that is linear between knots, which are grey levels.

    It is a mixture of fixed components, one a knot. That of a knot is highest there, and falls linearly to nothing at
    the knots beside it. Parameters are the logits of the shares, less those of the data. A share
    of `FLOOR` is uniform.

    The knots are shared by all pixels, and `fit` takes them from data (see `knots.knots_of`). A level whose neighbours
    are knots too has a share to itself. With as many components as levels every level has.

    components: how many knots, at least two and at most `levels`.
    """

    knots: Tensor
    shares: Tensor
    flags: Tensor

    def __init__(self, components: int, levels: int) -> None:
        super().__init__(levels)
        if not 2 <= components <= levels:
            raise TzkError(f"shares of {levels} grey levels have 2 to {levels} components; got {components}")
        self.count = components
        self.features_of_channel = 1 + FLAGS
        self.register_buffer("knots", torch.linspace(0, levels - 1, components).round().long())
        self.register_buffer("shares", self._components().sum(1).float() / levels)
        self.register_buffer("flags", torch.linspace(0, levels - 1, FLAGS).round().long())
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def _take(self, counts: Tensor) -> None:
        self.knots.copy_(knots_of(counts, self.count))
        frequent = counts.argsort(descending=True, stable=True)[:FLAGS].sort().values
        self.flags[: len(frequent)] = frequent.to(self.flags)
        components = self._components()
        masses = (1 - EVEN) * counts / counts.sum() + EVEN / self.levels
        self.shares.copy_(components @ masses.to(components))

    def features(self, values: Tensor) -> Tensor:
        """Brightness of the level alone, and which of the frequent levels it is."""
        level = (values.detach() * self.levels).floor().clamp(0, self.levels - 1)
        flags = [(level == flag).to(level) for flag in self.flags]
        return torch.cat([level * (2 / (self.levels - 1)) - 1, *flags], 1)

    def distributions(self, parameters: Tensor) -> _Shares:
        every = [-1, *[1] * (parameters.dim() - 2)]
        shares = functional.softmax(parameters + self.shares.log().view(every), 1)
        first = self._first()
        components = self._components().to(shares)
        parts = components / components.sum(1, keepdim=True)
        darker = parts.cumsum(1) - parts
        pair = torch.stack([first, first + 1])
        return _Shares(shares, first, parts.gather(0, pair), darker.gather(0, pair))

    def cells(self, level: Tensor, distributions: _Shares) -> Cell:
        index = level.long()
        first = distributions.first[index]
        mass, below = distributions.mass[:, index], distributions.below[:, index]
        before, low, high, after = around(distributions.shares, first, first + 1)
        darker = before + low * below[0] + high * below[1]
        brighter = after + low * (1 - below[0] - mass[0]) + high * (1 - below[1] - mass[1])
        even = FLOOR / self.levels
        return Cell(
            torch.log((1 - FLOOR) * (low * mass[0] + high * mass[1]) + even),
            (1 - FLOOR) * darker + even * level,
            (1 - FLOOR) * brighter + even * (self.levels - 1 - level),
        )

    def below(self, level: Tensor, distributions: _Shares) -> tuple[Tensor, Tensor]:
        index = level.long()
        first, below = distributions.first[index], distributions.below[:, index]
        before, after = distributions.sums
        low, high = gather(distributions.shares, first), gather(distributions.shares, first + 1)
        darker = gather(before, first) + low * below[0] + high * below[1]
        brighter = gather(after, first + 1) + low * (1 - below[0]) + high * (1 - below[1])
        even = FLOOR / self.levels
        return (1 - FLOOR) * darker + even * level, (1 - FLOOR) * brighter + even * (self.levels - level)

    def _first(self) -> Tensor:
        """The number of the last knot at or below every level, (levels,).

        The last of all is not among them: two knots, this one and the next, enclose a level.
        """
        levels = torch.arange(self.levels, device=self.knots.device)
        return torch.searchsorted(self.knots[1:-1].contiguous(), levels, right=True)

    def _components(self) -> Tensor:
        """The heights of the components at every level, (count, levels) in float64.

        They sum to 1 over components.
        """
        first = self._first()
        levels = torch.arange(self.levels, device=first.device)
        left, right = self.knots[first], self.knots[first + 1]
        place = ((levels - left).double() / (right - left)).unsqueeze(1)
        one_hot = functional.one_hot
        return (one_hot(first, self.count) * (1 - place) + one_hot(first + 1, self.count) * place).T
