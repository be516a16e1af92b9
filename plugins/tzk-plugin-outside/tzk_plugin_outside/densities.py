"""The density of statistics of images, and what they let one expect of another value."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tzk_plugin_features.mixture import Components

COMPONENTS = 32
"""Gaussians of the statistics, beyond which held-out likelihood hardly rises (`docs/knowledge/strangers.md`)."""

SHRINKAGE, TRUST = 0.02, 5.0
"""Of the covariances of the Gaussians, as `Components.fit` has them."""

RIDGE = 0.02
"""The share of the identity in the correlation of the statistics of a regression."""

LEAST_SCALE = 1e-9


class Standardised(nn.Module):
    """Statistics as distances from their means, in standard deviations; buffers of float64."""

    mean: Tensor
    scale: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(count, dtype=torch.float64))

    def fit(self, values: Tensor) -> None:
        """Fit to values, (n, k), of float64."""
        self.mean, self.scale = values.mean(0), values.std(0).clamp_min(LEAST_SCALE)

    def forward(self, values: Tensor) -> Tensor:
        """(n, k), of values, (n, k)."""
        return (values - self.mean) / self.scale


class StateDensity(nn.Module):
    """A mixture of Gaussians over k statistics in their standard deviations; buffers of float64."""

    log_weights: Tensor

    def __init__(self, count: int, components: int = COMPONENTS) -> None:
        super().__init__()
        self.standardised = Standardised(count)
        self.components = Components(components, count).double()
        self.register_buffer("log_weights", torch.zeros(components, dtype=torch.float64))

    def fit(self, values: Tensor, generator: torch.Generator) -> None:
        """Fit to values, (n, k), of float64."""
        self.standardised.fit(values)
        y = self.standardised(values)
        self.log_weights = self.components.fit(y, shrinkage=SHRINKAGE, trust=TRUST, generator=generator).log()

    def forward(self, values: Tensor) -> Tensor:
        """Log-densities, (n,), of values, (n, k), but for a constant."""
        y = self.standardised(values)
        return (self.components(y) + self.log_weights).logsumexp(1) - 0.5 * y.square().sum(1)


class Regression(nn.Module):
    """The expectation of a value by k statistics, linear, with a ridge; buffers of float64."""

    slopes: Tensor
    intercept: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.standardised = Standardised(count)
        self.register_buffer("slopes", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("intercept", torch.zeros((), dtype=torch.float64))

    def fit(self, statistics: Tensor, values: Tensor) -> None:
        """Fit to statistics, (n, k), and values, (n,), of float64."""
        self.standardised.fit(statistics)
        self.intercept = values.mean()
        x = self.standardised(statistics)
        correlation = (1 - RIDGE) * x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
        self.slopes = torch.linalg.solve(correlation, x.T @ (values - self.intercept) / len(x))

    def forward(self, statistics: Tensor) -> Tensor:
        """The expected values, (n,), of statistics, (n, k)."""
        return self.intercept + self.standardised(statistics) @ self.slopes
