"""The knowledge type `low-rank`: small, for a large z whose first dimensions are informative."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzk_core.distributions.low_rank import LowRankGaussian
from tzk_core.distributions.regressor import Regressor
from tzk_core.errors import TzkError
from tzk_core.knowledge.base import Knowledge
from tzk_core.transforms.shrinkage import shrunk_covariance

LEAST = 256
"""The fewest latents that it starts from: the covariance of fewer would be that of an accident."""


class QuadraticRegressor(nn.Module):
    """(…, inputs) to (…, 1): a quadratic form with diagonal curvature, plus a `Regressor`.

    It starts at zero. The form alone is the log-odds of two Gaussians with diagonal covariances. A narrow network
    cannot represent these, as they sum a little from every input. The network adds correlations and mixtures over C.
    """

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.regressor = Regressor(inputs, 1, hidden=hidden, layers=layers)
        self.slope = nn.Parameter(torch.zeros(inputs))
        self.curvature = nn.Parameter(torch.zeros(inputs))

    def forward(self, inputs: Tensor) -> Tensor:
        form = inputs @ self.slope + (inputs.square() - 1) @ self.curvature
        return self.regressor(inputs) + form.unsqueeze(-1)


class LowRankKnowledge(Knowledge):
    """A `LowRankGaussian` in the first `dims` of z; the others are N(0, 1).

    For shared flows that put the coarsest latents first, over a standard Gaussian base: beyond `dims` the ratio
    p(z given C)/p(z) is then exactly 1. Discriminator and encoder see these dimensions alone; the discriminator has a
    quadratic form beside its network. With the defaults it has 20,000 parameters, with hidden = 32 twice as many.
    On 500 `glyph-digits`, 16x16, after 500 steps of batch 128, twice as many took the accuracy of the Bayes posterior
    from 97.8 to 99.6 %. `gaussian`, of 103,000 parameters, reached 98.6 %.
    """

    latent: LowRankGaussian

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 2,
        *,
        dims: int = 256,
        rank: int = 8,
        hidden: int = 16,
        layers: int = 3,
    ) -> None:
        if dims < 1 or rank < 1:
            raise TzkError(f"low-rank expects dims and rank of at least 1; got {dims} and {rank}")
        latent = LowRankGaussian(latent_shape, characteristics, dims=dims, rank=rank, hidden=hidden, layers=layers)
        super().__init__(latent_shape, latent, characteristics, hidden=hidden, layers=layers, features=latent.dims)
        self.discriminator = QuadraticRegressor(latent.dims, hidden, layers)

    def features(self, z: Tensor) -> Tensor:
        return z.flatten(1)[:, : self.latent.dims]

    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        self.latent.initialise(generator)

    @torch.no_grad()
    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        """Take the moments of z, if it has `LEAST` rows; the reference is not used."""
        if len(z) >= LEAST:
            x = self.features(z).double()
            mean = x.mean(0)
            self.latent.set(mean, shrunk_covariance(x - mean))
