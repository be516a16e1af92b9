"""The knowledge type `gaussian`: p(z given C, κ=1) is a conditional Gaussian."""

from __future__ import annotations

from tzk_core.distributions.conditional import ConditionalGaussian
from tzk_core.knowledge.base import Knowledge


class GaussianKnowledge(Knowledge):
    """N(μ(C), σ²(C)) in the latent: over a random C an infinite mixture.

    That is enough for few dimensions.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 2,
        *,
        hidden: int = 70,
        layers: int = 4,
    ) -> None:
        latent = ConditionalGaussian(latent_shape, characteristics, hidden=hidden, layers=layers)
        super().__init__(latent_shape, latent, characteristics, hidden=hidden, layers=layers)
