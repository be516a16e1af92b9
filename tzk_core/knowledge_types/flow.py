"""The knowledge type `flow`, the paper's: a conditional Gaussian pushed through further flow steps (Section 3)."""

from __future__ import annotations

from tzk_core.distributions.conditional import ConditionalFlow, ConditionalGaussian
from tzk_core.knowledge import Knowledge
from tzk_core.recipes.paper import flow_steps


class FlowKnowledge(Knowledge):
    """`steps` of the paper's flow step between z and the conditional Gaussian; they start at the identity.

    On a latent that is an image the steps mix tiles of `tile`×`tile`, on a vector all of its dimensions.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 2,
        steps: int = 4,
        tile: int = 16,
        hidden: int = 70,
        layers: int = 4,
    ) -> None:
        transform = flow_steps(latent_shape, steps, tile)
        base = ConditionalGaussian(latent_shape, characteristics, hidden, layers)
        super().__init__(latent_shape, ConditionalFlow(transform, base, latent_shape), characteristics, hidden, layers)
