"""A Gaussian with few factors (probabilistic PCA), with exact marginal and posterior."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.standard import LOG_2PI
from tzk_core.transforms.bounds import soft_bound, soft_bound_inverse


class FactorGaussian(Reparametrised):
    """x = mean + A C + σ ε, with factors C as the context.

    ε is N(0, I). p(x given C) is N(mean + A C, diag σ²). With C ~ N(0, I), x is Gaussian with covariance A Aᵀ + diag
    σ², and C given x is Gaussian too (Tipping and Bishop 1999). The density starts as N(0, I), whatever C. |log σ|
    stays below `log_scale_bound`, smoothly.
    """

    def __init__(self, shape: tuple[int, ...], factors: int, log_scale_bound: float = 8.0) -> None:
        super().__init__(shape)
        dims = math.prod(shape)
        self.log_scale_bound = log_scale_bound
        self.mean_ = nn.Parameter(torch.zeros(dims))
        self.raw_log_scale = nn.Parameter(torch.zeros(dims))
        self.loading = nn.Parameter(torch.zeros(dims, factors))

    @property
    def log_scale(self) -> Tensor:
        """log σ, (dims,)."""
        return soft_bound(self.raw_log_scale, self.log_scale_bound)

    @torch.no_grad()
    def set(self, mean: Tensor, variance: Tensor, loading: Tensor) -> None:
        """Set the mean, (dims,), σ², (dims,), and A, (dims, factors)."""
        self.mean_.copy_(mean)
        self.raw_log_scale.copy_(soft_bound_inverse(0.5 * variance.log(), self.log_scale_bound))
        self.loading.copy_(loading)

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        if context is None:
            raise ValueError("a Gaussian with factors expects a context; got none")
        flat = inputs.flatten(inputs.dim() - len(self.shape))
        residual = (flat - self.mean_) * torch.exp(-self.log_scale)
        explained = context @ (self.loading * torch.exp(-self.log_scale).unsqueeze(1)).T
        residual = (residual.unsqueeze(1) if explained.dim() > residual.dim() else residual) - explained
        return -0.5 * residual.square().sum(-1) - self.log_scale.sum() - 0.5 * flat.shape[-1] * LOG_2PI

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            raise ValueError("a Gaussian with factors expects a context; got none")
        flat = noise.flatten(noise.dim() - len(self.shape))
        return (self.mean_ + context @ self.loading.T + self.log_scale.exp() * flat).view(noise.shape)

    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of C given x, and the Cholesky factor of its precision.

        Args:
            inputs: x, (batch, *shape).

        Returns:
            (batch, factors) and (factors, factors).
        """
        scaled = self.loading * torch.exp(-self.log_scale).unsqueeze(1)
        precision = torch.eye(scaled.shape[1], dtype=scaled.dtype, device=scaled.device) + scaled.T @ scaled
        root = torch.linalg.cholesky(precision)
        residual = (inputs.flatten(1) - self.mean_) * torch.exp(-self.log_scale)
        return torch.cholesky_solve((residual @ scaled).T, root).T, root

    def log_prob_marginal(self, inputs: Tensor) -> Tensor:
        """Exact log ∫ p(x given C) N(C; 0, I) dC, (batch,).

        It is Bayes' rule at the posterior's mean.
        """
        mean, root = self.posterior(inputs)
        log_prior = -0.5 * (mean.square() + LOG_2PI).sum(-1)
        log_posterior = root.diagonal().log().sum() - 0.5 * mean.shape[-1] * LOG_2PI
        return self._log_prob(inputs, mean) + log_prior - log_posterior
