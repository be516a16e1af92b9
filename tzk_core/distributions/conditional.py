"""Conditional densities: a Gaussian regressed from the context, and a flow on top of one."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.regressor import Regressor
from tzk_core.distributions.standard import LOG_2PI
from tzk_core.transforms.bounds import soft_bound, soft_bound_inverse


class ConditionalGaussian(Reparametrised):
    """N(μ(context), diag σ²(context)), both from one regressor (paper, Section 3).

    It starts as N(0, I). |μ| stays below `mean_bound` and |log σ| below `log_scale_bound`, smoothly, so that a
    regressor cannot overflow far from its training data.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        context: int,
        *,
        hidden: int = 70,
        layers: int = 4,
        mean_bound: float = 20.0,
        log_scale_bound: float = 5.0,
    ) -> None:
        super().__init__(shape)
        self.regressor = Regressor(context, 2 * math.prod(shape), hidden=hidden, layers=layers)
        self.mean_bound, self.log_scale_bound = mean_bound, log_scale_bound

    def parameters_of(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale, (…, dims) each, at a context, (…, c)."""
        mean, log_scale = self.regressor(context).chunk(2, -1)
        return soft_bound(mean, self.mean_bound), soft_bound(log_scale, self.log_scale_bound)

    @torch.no_grad()
    def start_linear(self, weight: Tensor, deviation: float) -> None:
        """Start as N(`weight` context, `deviation`²); with 0 and 1 this is N(0, I).

        Args:
            weight: (dims, c).
            deviation: the standard deviation of every dimension.
        """
        dims = math.prod(self.shape)
        self.regressor.start_linear(weight)
        bias = self.regressor[-1].bias
        assert isinstance(bias, Tensor)
        bias[dims:] = soft_bound_inverse(torch.tensor(math.log(deviation)), self.log_scale_bound).to(bias)

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        return self.log_prob_at(inputs, *self.parameters_of(required(context)))

    def log_prob_at(self, inputs: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """As `log_prob`, with the parameters of a context."""
        flat = inputs.flatten(inputs.dim() - len(self.shape))
        flat, mean, log_scale = over_samples(flat, mean), over_samples(mean, flat), over_samples(log_scale, flat)
        standard = (flat - mean) * torch.exp(-log_scale)
        return -0.5 * standard.square().sum(-1) - log_scale.sum(-1) - 0.5 * flat.shape[-1] * LOG_2PI

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return self.from_noise_at(noise, *self.parameters_of(required(context)))

    def from_noise_at(self, noise: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """As `from_noise`, with the parameters of a context."""
        flat = noise.flatten(noise.dim() - len(self.shape))
        mean, log_scale = over_samples(mean, flat), over_samples(log_scale, flat)
        return torch.addcmul(mean, log_scale.exp(), flat).view(noise.shape)

    def _mean(self, context: Tensor | None) -> Tensor:
        mean, _ = self.parameters_of(required(context))
        return mean.reshape(*mean.shape[:-1], *self.shape)


class ConditionalFlow(Reparametrised):
    """p(z given C) = p_base(g(z) given C) |det ∂g/∂z| (paper, Section 3).

    transform: g, which does not depend on C.
    """

    def __init__(self, transform: Transform, base: Reparametrised, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.transform = transform
        self.base = base

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        latent, logabsdet = self.transform(inputs)
        log_prob = self.base.log_prob(latent, context)
        return log_prob + (logabsdet if log_prob.dim() == 1 else logabsdet.unsqueeze(1))

    def noise(self, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return self.base.noise(size, generator)

    def from_gaussian(self, noise: Tensor) -> Tensor:
        return self.base.from_gaussian(noise)

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.inverse(self.base.from_noise(noise, context))[0]


def over_samples(values: Tensor, other: Tensor) -> Tensor:
    """View (batch, dims) as (batch, 1, dims) where `other` is (batch, samples, dims)."""
    return values.unsqueeze(1) if values.dim() < other.dim() else values


def required(context: Tensor | None) -> Tensor:
    """The context of a conditional density.

    Raises:
        ValueError: if it is None.
    """
    if context is None:
        raise ValueError("a conditional density expects a context; got none")
    return context
