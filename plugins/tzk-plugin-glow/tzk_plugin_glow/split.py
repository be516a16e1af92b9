"""Multi-scale structure (Real NVP, Section 3.6): half of the channels leave, given the half that goes on."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.transforms.composite import initialise
from tzk_core.transforms.layer import Layer
from tzk_plugin_glow.coupling import Coupling


class Split(Layer):
    """z = (inner(h), g(x; h)) for inputs (h, x), the two halves of the channels of (channels, height, width).

    g is a map of elements with parameters from h, a coupling: the density that it gives x given h is the split prior,
    and the base stays one standard Gaussian over all of z. z is flat, (d,), what comes from `inner` first: with one
    split in another the coarsest latents lead.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        inner: Transform,
        map: str = "affine",
        components: int = 4,
        width: int = 48,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        self.output_shape = (math.prod(shape),)
        self.kept = shape[0] - shape[0] // 2
        self.leaving = (shape[0] // 2, *shape[1:])
        self.prior = Coupling(shape, map, components, width, blocks)
        self.inner = inner

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Starts the layers of `inner` from what reaches them."""
        initialise(self.inner, self.prior(inputs)[0][:, : self.kept])

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = self.prior(inputs)
        going_on, leaving = outputs.split((self.kept, self.leaving[0]), 1)
        latent, inner_logabsdet = self.inner(going_on)
        return torch.cat([latent.flatten(1), leaving.flatten(1)], 1), logabsdet + inner_logabsdet

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        latent, leaving = inputs.split((inputs.shape[1] - math.prod(self.leaving), math.prod(self.leaving)), 1)
        going_on, inner_logabsdet = self.inner.inverse(latent)
        outputs, logabsdet = self.prior.inverse(torch.cat([going_on, leaving.unflatten(1, self.leaving)], 1))
        return outputs, logabsdet + inner_logabsdet
