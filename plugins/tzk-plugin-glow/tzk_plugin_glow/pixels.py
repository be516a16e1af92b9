"""Increasing maps of pixels in [0, 1] to Gaussians, whose parameters come from a network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from tzk_core.errors import TzkError

FLOOR = 1e-5
"""Share of the uniform distribution in every mixture: no grey level costs more than 25 bits, and no z is beyond 8."""


class Cumulative(NamedTuple):
    """The log-density of values, F and 1 - F, in the shape of the values."""

    log_density: Tensor
    cdf: Tensor
    survival: Tensor


class PixelMap(ABC):
    """z = Φ⁻¹(F(T)) for pixels T in [0, 1], with F their CDF.

    Values are (batch, c, h, w), parameters (batch, count, c, h, w).
    """

    count: int
    levels: int
    features_of_channel = 3

    def __init__(self, levels: int) -> None:
        if levels < 2 or levels & (levels - 1):
            raise TzkError(f"the number of grey levels is expected to be a power of two; got {levels}")
        super().__init__()
        self.levels = levels

    @abstractmethod
    def start(self) -> Tensor:
        """Initial parameters, (count,)."""

    def fit(self, values: Tensor) -> None:  # noqa: B027  a map without anything to fit has nothing to do
        """Start from values in [0, 1], unless that was done before."""

    @abstractmethod
    def features(self, values: Tensor) -> Tensor:
        """What networks see of pixels: brightness over [-1, 1], then what else tells levels apart.

        Args:
            values: (batch, channels, h, w) in [0, 1].

        Returns:
            (batch, features_of_channel * channels, h, w).
        """

    @abstractmethod
    def cumulative(self, values: Tensor, parameters: Tensor) -> Cumulative:
        """F and its density at values in [0, 1]."""

    @abstractmethod
    def quantile(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """The values with F = Φ(z), and the log-density there."""

    def forward(self, values: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """z and log|dz/dT|, both of the shape of `values`, T in [0, 1]."""
        log_density, cdf, survival = self.cumulative(values, parameters)
        low = cdf < survival
        z = torch.special.ndtri(torch.where(low, cdf, survival).clamp_min(torch.finfo(values.dtype).tiny))
        z = torch.where(low, z, -z)
        return z, log_density - _log_gaussian(z)

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """T and log|dT/dz|."""
        values, log_density = self.quantile(z, parameters)
        return values, _log_gaussian(z) - log_density


def _log_gaussian(z: Tensor) -> Tensor:
    return -0.5 * (z.square() + math.log(2 * math.pi))
