"""The knowledge type `flow`: a conditional Gaussian through further flow steps (paper, Section 3)."""

from __future__ import annotations

from torch import Tensor

from tzk_core.distributions.conditional import ConditionalFlow, ConditionalGaussian
from tzk_core.knowledge.base import Knowledge
from tzk_core.recipes.paper import flow_steps, start_steps, upgrade_arguments

LEAST = 256
"""The fewest latents that a flow starts from: the means and deviations of fewer would be those of an accident."""


class FlowKnowledge(Knowledge):
    """`steps` of the paper's flow step between z and the conditional Gaussian.

    They start at the identity. On a latent that is an image they mix tiles of `tile`×`tile`, on a vector all of its
    dimensions. `knee` is that of their `SymLog`.
    """

    latent: ConditionalFlow
    state_version = 2
    upgrade_arguments = staticmethod(upgrade_arguments)

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 2,
        *,
        steps: int = 4,
        tile: int = 16,
        hidden: int = 70,
        layers: int = 4,
        knee: float = 1.0,
    ) -> None:
        transform = flow_steps(latent_shape, steps, tile, knee=knee)
        base = ConditionalGaussian(latent_shape, characteristics, hidden=hidden, layers=layers)
        super().__init__(
            latent_shape, ConditionalFlow(transform, base, latent_shape), characteristics, hidden=hidden, layers=layers
        )

    def start(self, z: Tensor, reference: Tensor, groups: Tensor | None = None) -> None:
        """Start the flow steps from z, if it has `LEAST` rows or more.

        From fewer the steps stay at the identity, or at those of the knowledge that they were copied from. The
        reference is not used.
        """
        if len(z) >= LEAST:
            start_steps(self.latent.transform, z)
