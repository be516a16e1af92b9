"""Grey levels to Gaussians by their CDF, and mixtures of logistics as their distribution."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tzk_core.errors import TzkError
from tzk_core.transforms.bounds import soft_bound
from tzk_plugin_glow.pixels import FLOOR, Cumulative, PixelMap

BOUND = 7.0
"""Of the log-scales of logistics, where grey levels are spread over (-1, 1)."""


class Cell(NamedTuple):
    """log P of grey levels, and the probabilities of all darker and all brighter ones."""

    log_probability: Tensor
    below: Tensor
    above: Tensor


class GreyMixture(NamedTuple):
    """log π, μ and 1/s of the components, (batch, components, c, h, w)."""

    log_weights: Tensor
    means: Tensor
    sharpness: Tensor


class GreyLevelMap(PixelMap):
    """z = Φ⁻¹(F(x)) for grey levels x = `levels` T, with F their CDF.

    F has the density P(k) on the cell (k, k + 1) of every grey level k. It is piecewise linear, so that a uniform
    density in a cell is met exactly. Under uniform dequantisation log p(T) is then the log-probability of the grey
    levels: nothing is lost to the noise. What P is, subclasses say.
    """

    @abstractmethod
    def distributions(self, parameters: Tensor) -> Any:
        """What `cells` and `below` look at, from the parameters."""

    @abstractmethod
    def cells(self, level: Tensor, distributions: Any) -> Cell:
        """P of levels, (batch, c, h, w), and what is on both sides of them."""

    @abstractmethod
    def below(self, level: Tensor, distributions: Any) -> tuple[Tensor, Tensor]:
        """F at the lower edge of `level`, and 1 - F there."""

    def cumulative(self, values: Tensor, parameters: Tensor) -> Cumulative:
        x = values * self.levels
        level = x.detach().floor().clamp(0, self.levels - 1)
        noise = x - level
        log_probability, below, above = self.cells(level, self.distributions(parameters))
        probability = log_probability.exp()
        log_density = log_probability + math.log(self.levels)
        return Cumulative(log_density, below + noise * probability, above + (1 - noise) * probability)

    def quantile(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """The level by bisection, exactly; within its cell F is linear."""
        distributions = self.distributions(parameters)
        cdf, survival = torch.special.ndtr(z), torch.special.ndtr(-z)
        with torch.no_grad():
            level = torch.zeros_like(z)
            for bit in reversed(range((self.levels - 1).bit_length())):
                higher = (level + 2**bit).clamp_max(self.levels - 1)
                below, above = self.below(higher, distributions)
                level = torch.where(torch.where(z < 0, below <= cdf, above >= survival), higher, level)
        log_probability, below, above = self.cells(level, distributions)
        probability = log_probability.exp()
        noise = torch.where(z < 0, (cdf - below) / probability, 1 - (survival - above) / probability)
        margin = torch.finfo(z.dtype).eps * self.levels / 2
        values = (level + noise.clamp(margin, 1 - margin)) / self.levels
        return values, log_probability + math.log(self.levels)


class GreyMap(GreyLevelMap):
    """Grey levels by a discretised mixture of logistics.

    That of PixelCNN++ (Salimans et al. 2017, Section 2.1). A share of `FLOOR` is uniform. The tails belong to the
    darkest and brightest level.

    Values are (batch, c, h, w), parameters (batch, 3 components, c, h, w): logits of the weights, means, log-scales.
    """

    def __init__(self, components: int, levels: int) -> None:
        if components < 1:
            raise TzkError(f"a mixture has at least one component; got {components}")
        super().__init__(levels)
        self.components = components
        self.count = 3 * components

    def start(self) -> Tensor:
        """Initial parameters, (count,), with different means: equal components would have equal gradients."""
        start = torch.zeros(3, self.components)
        start[1] = torch.linspace(-1, 1, self.components)
        start[2] = -1.5
        return start.flatten()

    def features(self, values: Tensor) -> Tensor:
        """Brightness of the level alone: the noise in its cell is uninformative."""
        last = self.levels - 1
        level = (values.detach() * self.levels).floor().clamp(0, last)
        return torch.cat([level * (2 / last) - 1, (level == 0).to(level), (level == last).to(level)], 1)

    def distributions(self, parameters: Tensor) -> GreyMixture:
        logits, means, raw = parameters.chunk(3, 1)
        return GreyMixture(functional.log_softmax(logits, 1), means, torch.exp(-soft_bound(raw, BOUND)))

    def _edges(self, level: Tensor, mixture: GreyMixture) -> tuple[Tensor, Tensor]:
        """The lower and upper edge of the cell of `level`, standardised by every component."""
        centre = (level * (2 / (self.levels - 1)) - 1).unsqueeze(1) - mixture.means
        half = 1 / (self.levels - 1)
        return (centre - half) * mixture.sharpness, (centre + half) * mixture.sharpness

    def cells(self, level: Tensor, distributions: GreyMixture) -> Cell:
        """P of levels, as σ(b) - σ(a) = σ(b) σ(-a) (1 - exp(a - b)), which cancels nowhere."""
        log_weights, _, sharpness = distributions
        lower, upper = self._edges(level, distributions)
        darkest, brightest = (level == 0).unsqueeze(1), (level == self.levels - 1).unsqueeze(1)
        up, down = functional.logsigmoid(upper), functional.logsigmoid(-lower)
        width = torch.log(-torch.expm1(-sharpness * (2 / (self.levels - 1))))
        inside = torch.where(darkest, up, torch.where(brightest, down, up + down + width))
        mixed = torch.logsumexp(log_weights + inside, 1) + math.log1p(-FLOOR)
        log_probability = torch.logaddexp(mixed, torch.full_like(mixed, math.log(FLOOR / self.levels)))
        weights = log_weights.exp()
        below = torch.where(darkest, 0.0, weights * torch.sigmoid(lower)).sum(1)
        above = torch.where(brightest, 0.0, weights * torch.sigmoid(-upper)).sum(1)
        darker, brighter = level / self.levels, (self.levels - 1 - level) / self.levels
        return Cell(log_probability, (1 - FLOOR) * below + FLOOR * darker, (1 - FLOOR) * above + FLOOR * brighter)

    def below(self, level: Tensor, distributions: GreyMixture) -> tuple[Tensor, Tensor]:
        lower, _ = self._edges(level, distributions)
        weights = distributions.log_weights.exp()
        darkest = (level == 0).unsqueeze(1)
        below = torch.where(darkest, 0.0, weights * torch.sigmoid(lower)).sum(1)
        above = torch.where(darkest, weights, weights * torch.sigmoid(-lower)).sum(1)
        share = level / self.levels
        return (1 - FLOOR) * below + FLOOR * share, (1 - FLOOR) * above + FLOOR * (1 - share)
