"""Grey levels to Gaussians by the CDF of a discretised mixture of logistics."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tzk_core.errors import TzkError
from tzk_core.transforms.bounds import soft_bound

FLOOR = 1e-5
"""Share of the uniform distribution in every mixture: no grey level costs more than 25 bits, and no z is beyond 8."""

BOUND = 7.0
"""Of the log-scales of logistics, where grey levels are spread over (-1, 1)."""


class GreyMixture(NamedTuple):
    """log π, μ and 1/s of the components, (batch, components, c, h, w)."""

    log_weights: Tensor
    means: Tensor
    sharpness: Tensor


class GreyMap:
    """z = Φ⁻¹(F(x)) for grey levels x = `levels` T, with F their CDF.

    F has the density P(k) on the cell (k, k + 1) of every grey level k. P is the discretised mixture of logistics of
    PixelCNN++ (Salimans et al. 2017, Section 2.1), with a share of `FLOOR` that is uniform. The tails belong to the
    darkest and brightest level. F is piecewise linear, so that a uniform density in a cell is met exactly. Under
    uniform dequantisation log p(T) is then the log-probability of the grey levels: nothing is lost to the noise.

    Values are (batch, c, h, w), parameters (batch, 3 components, c, h, w): logits of the weights, means, log-scales.
    """

    def __init__(self, components: int, levels: int) -> None:
        if components < 1:
            raise TzkError(f"a mixture has at least one component; got {components}")
        if levels < 2 or levels & (levels - 1):
            raise TzkError(f"the number of grey levels is expected to be a power of two; got {levels}")
        self.components, self.levels = components, levels
        self.count = 3 * components

    def start(self) -> Tensor:
        """Initial parameters, (count,), with different means: equal components would have equal gradients."""
        start = torch.zeros(3, self.components)
        start[1] = torch.linspace(-1, 1, self.components)
        start[2] = -1.5
        return start.flatten()

    def forward(self, values: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """z and log|dz/dT|, both of the shape of `values`, T in [0, 1]."""
        x = values * self.levels
        level = x.detach().floor().clamp(0, self.levels - 1)
        noise = x - level
        log_probability, below, above = self._cell(level, self._mixture(parameters))
        probability = log_probability.exp()
        cdf, survival = below + noise * probability, above + (1 - noise) * probability
        low = cdf < survival
        z = torch.special.ndtri(torch.where(low, cdf, survival).clamp_min(torch.finfo(x.dtype).tiny))
        z = torch.where(low, z, -z)
        return z, self._log_slope(z, log_probability)

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """T and log|dT/dz|: the level by bisection, exactly; within its cell F is linear."""
        mixture = self._mixture(parameters)
        cdf, survival = torch.special.ndtr(z), torch.special.ndtr(-z)
        with torch.no_grad():
            level = torch.zeros_like(z)
            for bit in reversed(range((self.levels - 1).bit_length())):
                higher = (level + 2**bit).clamp_max(self.levels - 1)
                below, above = self._below(higher, mixture)
                level = torch.where(torch.where(z < 0, below <= cdf, above >= survival), higher, level)
        log_probability, below, above = self._cell(level, mixture)
        probability = log_probability.exp()
        noise = torch.where(z < 0, (cdf - below) / probability, 1 - (survival - above) / probability)
        margin = torch.finfo(z.dtype).eps * self.levels / 2
        values = (level + noise.clamp(margin, 1 - margin)) / self.levels
        return values, -self._log_slope(z, log_probability)

    def _log_slope(self, z: Tensor, log_probability: Tensor) -> Tensor:
        """log|dz/dT|: the density of T, levels P, over that of z."""
        return log_probability + math.log(self.levels) + 0.5 * (z.square() + math.log(2 * math.pi))

    def _mixture(self, parameters: Tensor) -> GreyMixture:
        logits, means, raw = parameters.chunk(3, 1)
        return GreyMixture(functional.log_softmax(logits, 1), means, torch.exp(-soft_bound(raw, BOUND)))

    def _edges(self, level: Tensor, mixture: GreyMixture) -> tuple[Tensor, Tensor]:
        """The lower and upper edge of the cell of `level`, standardised by every component."""
        centre = (level * (2 / (self.levels - 1)) - 1).unsqueeze(1) - mixture.means
        half = 1 / (self.levels - 1)
        return (centre - half) * mixture.sharpness, (centre + half) * mixture.sharpness

    def _cell(self, level: Tensor, mixture: GreyMixture) -> tuple[Tensor, Tensor, Tensor]:
        """log P(level), and the probabilities of all darker and all brighter levels.

        σ(b) - σ(a) = σ(b) σ(-a) (1 - exp(a - b)), which cancels nowhere.
        """
        log_weights, _, sharpness = mixture
        lower, upper = self._edges(level, mixture)
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
        return log_probability, (1 - FLOOR) * below + FLOOR * darker, (1 - FLOOR) * above + FLOOR * brighter

    def _below(self, level: Tensor, mixture: GreyMixture) -> tuple[Tensor, Tensor]:
        """F at the lower edge of `level`, and 1 - F there."""
        lower, _ = self._edges(level, mixture)
        weights = mixture.log_weights.exp()
        darkest = (level == 0).unsqueeze(1)
        below = torch.where(darkest, 0.0, weights * torch.sigmoid(lower)).sum(1)
        above = torch.where(darkest, weights, weights * torch.sigmoid(-lower)).sum(1)
        share = level / self.levels
        return (1 - FLOOR) * below + FLOOR * share, (1 - FLOOR) * above + FLOOR * (1 - share)
