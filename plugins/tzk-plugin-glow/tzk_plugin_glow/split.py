"""Multi-scale structure (Real NVP, Section 3.6): half of the channels leave."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.transforms.composite import initialise
from tzk_core.transforms.layer import Layer
from tzk_plugin_glow.coupling import Coupling


class Split(Layer):
    """z = (inner(h), g(x; h)) for inputs (h, x), two halves of the channels.

    g is a map of elements with parameters from h, a coupling. Its density of x given h is the split prior, and the base
    stays one standard Gaussian over all of z. z is flat, (d,), the outputs of `inner` first: with one split in another
    the coarsest latents lead.

    shape: (channels, height, width).
    map, components, width, blocks: of the coupling.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        inner: Transform,
        map: str = "affine",
        *,
        components: int = 4,
        width: int = 48,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        self.output_shape = (math.prod(shape),)
        self.staying = shape[0] - shape[0] // 2
        self.leaving = (shape[0] // 2, *shape[1:])
        self.prior = Coupling(shape, map, components, width=width, blocks=blocks)
        self.inner = inner

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Initialise the layers of `inner` from the half that stays."""
        initialise(self.inner, self.prior(inputs)[0][:, : self.staying])

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = self.prior(inputs)
        staying, leaving = outputs.split((self.staying, self.leaving[0]), 1)
        latent, inner_logabsdet = self.inner(staying)
        return torch.cat([latent.flatten(1), leaving.flatten(1)], 1), logabsdet + inner_logabsdet

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        latent, leaving = inputs.split((inputs.shape[1] - math.prod(self.leaving), math.prod(self.leaving)), 1)
        staying, inner_logabsdet = self.inner.inverse(latent)
        outputs, logabsdet = self.prior.inverse(torch.cat([staying, leaving.unflatten(1, self.leaving)], 1))
        return outputs, logabsdet + inner_logabsdet
