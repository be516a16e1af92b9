"""Knowledge whose C are the factors of a Gaussian.

So what is integrated over C is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tzk_core.distributions.standard import LOG_2PI
from tzk_core.knowledge.base import Knowledge
from tzk_plugin_few_shot.factors import FactorGaussian


class FactorKnowledge(Knowledge):
    """Knowledge by a `FactorGaussian` of coordinates y of z.

    It is p(z given C, κ=1), and p(C given z, κ=1) is its posterior.

    Subclasses MUST implement `factors` and `gaussian`. They have no `characteristics_encoder`.
    """

    def factors(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The coordinates of the Gaussian, and the rest of log p(z given κ=1).

        Returns:
            The coordinates, (batch, *shape), and the rest, (batch,).
        """
        raise NotImplementedError

    @property
    def gaussian(self) -> FactorGaussian:
        """The density of y."""
        raise NotImplementedError

    def log_prob_present(self, z: Tensor) -> Tensor:
        """log p(z given κ=1), (batch,), in nats: the exact integral over C ~ N(0, I)."""
        y, rest = self.factors(z)
        return self.gaussian.log_prob_marginal(y) + rest

    def log_prob_characteristics_given(self, C: Tensor, z: Tensor) -> Tensor:
        prior = self.characteristics_prior
        mean, root = self._posterior(z)
        standard = prior.standardise(C)
        standard = (standard - (mean.unsqueeze(1) if standard.dim() > mean.dim() else mean)) @ root
        log_volume = root.diagonal().log().sum() - prior.scale.log().sum()
        return -0.5 * (standard.square() + LOG_2PI).sum(-1) + log_volume

    def characteristics_given(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mean, root = self._posterior(z)
        identity = torch.eye(len(root), dtype=root.dtype, device=root.device)
        deviation = torch.linalg.solve_triangular(root, identity, upper=False).square().sum(0).sqrt()
        return self.imagine(mean), self.characteristics_prior.scale * deviation.expand_as(mean)

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        mean, root = self._posterior(z)
        rows = torch.linalg.solve_triangular(root, noise.reshape(-1, noise.shape[-1]), upper=False, left=False)
        scaled = rows.view(noise.shape)
        return self.imagine((mean.unsqueeze(1) if scaled.dim() > mean.dim() else mean) + scaled)

    def _posterior(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the standardised C, (batch, c), and Cholesky factor of its precision, (c, c)."""
        return self.gaussian.posterior(self.factors(z)[0])
