"""A Gaussian of statistics, and a linear regression on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RIDGE = 0.02
"""The share of the identity in the correlation of the statistics."""

LEAST_SCALE = 1e-9


class Gaussian(nn.Module):
    """A Gaussian of k statistics, with a correlation shrunk towards the identity; buffers of float64."""

    mean: Tensor
    scale: Tensor
    precision: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(count, dtype=torch.float64))
        self.register_buffer("precision", torch.eye(count, dtype=torch.float64))

    def fit(self, values: Tensor) -> None:
        """Fit to values, (n, k), of float64."""
        self.mean, self.scale = values.mean(0), values.std(0).clamp_min(LEAST_SCALE)
        away = self.standardised(values)
        identity = torch.eye(values.shape[1], dtype=values.dtype)
        self.precision = torch.linalg.inv((1 - RIDGE) * away.T @ away / len(away) + RIDGE * identity)

    def standardised(self, values: Tensor) -> Tensor:
        """Distances from the mean in standard deviations, (n, k)."""
        return (values - self.mean) / self.scale

    def typicality(self, values: Tensor) -> Tensor:
        """Minus the squared Mahalanobis distance, (n,)."""
        away = self.standardised(values)
        return -((away @ self.precision) * away).sum(1)


class Regression(nn.Module):
    """The expectation of a value by k statistics, linear, with a ridge; buffers of float64."""

    slopes: Tensor
    intercept: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.statistics = Gaussian(count)
        self.register_buffer("slopes", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("intercept", torch.zeros((), dtype=torch.float64))

    def fit(self, statistics: Tensor, values: Tensor) -> None:
        """Fit to statistics, (n, k), and values, (n,), of float64."""
        self.statistics.fit(statistics)
        self.intercept = values.mean()
        covariance = self.statistics.standardised(statistics).T @ (values - self.intercept) / len(values)
        self.slopes = self.statistics.precision @ covariance

    def forward(self, statistics: Tensor) -> Tensor:
        """The expected values, (n,), of statistics, (n, k)."""
        return self.intercept + self.statistics.standardised(statistics) @ self.slopes
