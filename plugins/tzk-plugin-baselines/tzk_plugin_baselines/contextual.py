"""The knowledge type `conditional-flow`: all networks of an architecture see C, any real numbers."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.distributions.base import Reparametrised
from tzk_core.distributions.conditional import required
from tzk_core.distributions.standard import StandardGaussian
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_plugin_baselines.architectures import ARCHITECTURES, build


class ContextFlow(Reparametrised):
    """A density over events of shape `shape` by a transform whose networks see the context.

    The context is (batch, c), or (batch, samples, c) to evaluate several for one event.
    """

    def __init__(self, shape: tuple[int, ...], transform: Transform, base: Reparametrised) -> None:
        super().__init__(shape)
        self.transform, self.base = transform, base

    def embed(self, context: Tensor) -> Tensor:
        """What the networks see of the context, (…, c); here all of it."""
        return context

    @property
    def dims(self) -> int:
        return int(torch.Size(self.shape).numel())

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        seen = self.embed(required(context))
        if several := seen.dim() == 3:
            inputs = inputs.unsqueeze(1).expand(*seen.shape[:2], *self.shape).flatten(0, 1)
        z, logabsdet = self.transform(inputs, seen.flatten(0, 1) if several else seen)
        log_prob = self.base.log_prob(z) + logabsdet
        return log_prob.view(seen.shape[:2]) if several else log_prob

    def noise(self, size: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return self.base.noise(size, generator).view(*size, *self.shape)

    def from_gaussian(self, noise: Tensor) -> Tensor:
        return self.base.from_gaussian(noise)  # element by element, whatever the shape

    def from_noise(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        latent = self.base.from_noise(noise.reshape(-1, *self.base.shape))
        return self.transform.inverse(latent, self.embed(required(context)))[0]


class ConditionalFlowKnowledge(Knowledge):
    """Knowledge whose C, numbers of any dimension, is the context of a whole flow.

    With an observed C, p(T given C, κ=1) is a neural posterior of T given C, as in simulation-based inference: T holds
    the parameters, C the data of a simulator. p(C given z, κ=1) is a Gaussian model of the simulator.

    Args:
        architecture: nice, real-nvp, maf and rq-nsf-coupling use `steps`, `hidden` and `blocks`; made-mog `hidden`,
            `blocks` and `components`; maf-mog all of these; glow `levels`, `steps`, `hidden` and `blocks`. The rest is
            ignored.
        encoder, layers: width and length of discriminator and encoder.

    Raises:
        TzkError: for an architecture of another name.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        characteristics: int = 2,
        *,
        architecture: str = "maf",
        steps: int = 5,
        hidden: int = 64,
        blocks: int = 1,
        components: int = 10,
        levels: int = 2,
        encoder: int = 70,
        layers: int = 3,
    ) -> None:
        if architecture not in ARCHITECTURES:
            names = ", ".join(ARCHITECTURES)
            raise TzkError(f"conditional-flow: architecture is one of {names}; got {architecture!r}")
        shape = tuple(latent_shape)
        sizes = {"steps": steps, "hidden": hidden, "blocks": blocks, "components": components, "levels": levels}
        transform = build(architecture, shape, sizes=sizes, context=characteristics)
        latent = ContextFlow(shape, transform, StandardGaussian((math.prod(shape),)))
        super().__init__(shape, latent, characteristics, hidden=encoder, layers=layers)
