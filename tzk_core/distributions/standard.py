"""Base densities without parameters, and a Gaussian fitted in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tzk_core.distributions.base import Reparametrised

LOG_2PI = math.log(2 * math.pi)


class StandardGaussian(Reparametrised):
    """N(0, I) over events of shape `shape`."""

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return -0.5 * (inputs.square().flatten(1).sum(1) + math.prod(self.shape) * LOG_2PI)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return noise


class StandardLogistic(Reparametrised):
    """A product of standard logistic densities, as in NICE, with heavier tails than the Gaussian."""

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return -(functional.softplus(inputs) + functional.softplus(-inputs)).flatten(1).sum(1)

    def noise(self, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        uniform = torch.rand(*size, *self.shape, generator=generator, dtype=torch.float64)
        return torch.logit(uniform, eps=1e-12).to(torch.get_default_dtype())

    def from_gaussian(self, noise: Tensor) -> Tensor:
        return torch.special.log_ndtr(noise) - torch.special.log_ndtr(-noise)  # the logit of Φ(noise), in the tails too

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return noise


class FittedGaussian(Reparametrised):
    """A diagonal Gaussian over (c,) with mean and scale as buffers; N(0, I) until fitted.

    It is the prior p(C given κ=1) of a knowledge type. The moments of observed C maximise its likelihood in closed
    form. Where C is never observed, the fixed prior fixes the scale of C.
    """

    mean_: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.register_buffer("mean_", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, values: Tensor) -> None:
        """Set mean and standard deviation from `values`, (n, c), without rows that have nan."""
        observed = values[~values.isnan().any(1)]
        if len(observed) > 1:
            self.mean_.copy_(observed.mean(0))
            self.scale.copy_(observed.std(0, unbiased=False).clamp_min(1e-3))

    def standardise(self, values: Tensor) -> Tensor:
        """(values - mean) / scale, (…, c)."""
        return (values - self.mean_) / self.scale

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return (-0.5 * (self.standardise(inputs).square() + LOG_2PI) - self.scale.log()).sum(-1)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return self.mean_ + self.scale * noise
