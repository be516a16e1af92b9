"""An image by its sublattices: every second pixel first, then those between them given all that came before."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn
from torch.nn import functional

from tzk_core.transforms.composite import initialise
from tzk_core.transforms.layer import Layer
from tzk_plugin_glow.greys import GreyMap
from tzk_plugin_glow.network import ConvolutionalNet


class GreyLevels(Layer):
    """Every element by a mixture of its own, (c, h, w) in [0, 1] to z of that shape: `GreyMap` without a network."""

    def __init__(self, shape: tuple[int, ...], components: int = 5, levels: int = 256) -> None:
        super().__init__()
        self.output_shape = tuple(shape)
        self.map = GreyMap(components, levels)
        start = self.map.start().view(-1, *[1] * len(shape)).expand(-1, *shape)
        self.mixtures = nn.Parameter(start.clone())

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = self.map.forward(inputs, self.mixtures.unsqueeze(0))
        return outputs, logabsdet.flatten(1).sum(1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = self.map.inverse(inputs, self.mixtures.unsqueeze(0))
        return outputs, logabsdet.flatten(1).sum(1)


class Lattice(Layer):
    """The pixels of (channels, height, width) in three groups, each given those before it (Reed et al. 2017).

        a b     first a, every second pixel of every second row, by `inner`, a flow on (channels, height/2, width/2);
        c d     then d given a, and b and c at once given a and d: every pixel has its nearest neighbours before it.

    d, b and c become Gaussian by `GreyMap` with parameters from a network each, whose width and residual blocks these
    are. z is an image again, every latent in the place of its pixel; with `flat` it is a vector, first what comes from
    `inner`, which then gives vectors, so that the coarsest latents lead, then d, then b and c. Both sides are even.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        inner: Transform,
        components: int = 5,
        width: int = 64,
        blocks: int = 2,
        levels: int = 256,
        flat: bool = False,
        code: int = 0,
        apart: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width_of_image = shape
        self.part = (channels, height // 2, width_of_image // 2)
        self.flat, self.apart = flat, apart
        self.output_shape = (math.prod(shape) - apart * channels * self.part[2],) if flat else tuple(shape)
        self.map = GreyMap(components, levels)
        places = self.part[1:]
        count = self.map.count * channels
        self.diagonal = ConvolutionalNet(3 * channels, count, width, blocks, last=1, places=places, code=code)
        self.between = ConvolutionalNet(6 * channels, 2 * count, width, blocks, last=1, places=places, code=code)
        for net in (self.diagonal, self.between):
            net.start_at(self.map.start())
        self.inner = inner

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Starts the layers of `inner` from what reaches them."""
        initialise(self.inner, inputs[..., ::2, ::2])

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b, c, d = quarters(inputs)
        z_a, total = self.inner(a, context)
        z_d, at_d = self.map.forward(d, self._of_diagonal(a, context))
        z_bc, at_bc = self.map.forward(torch.cat([b, c], 1), self._of_between(a, d, context))
        return self._join(z_a, z_d, z_bc), total + at_d.flatten(1).sum(1) + self._kept(at_bc).sum(1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_a, z_d, z_bc = self._cut(inputs)
        a, total = self.inner.inverse(z_a, context)
        d, at_d = self.map.inverse(z_d, self._of_diagonal(a, context))
        bc, at_bc = self.map.inverse(z_bc, self._of_between(a, d, context))
        b, c = bc.chunk(2, 1)
        if self.apart:
            b = torch.cat([torch.zeros_like(b[..., : self.apart, :]), b[..., self.apart :, :]], -2)
        return interleave(a, b, c, d), total + at_d.flatten(1).sum(1) + self._kept(at_bc).sum(1)

    def _of_diagonal(self, a: Tensor, code: Tensor | None) -> Tensor:
        return self.diagonal(grey_features(a, self.map.levels), code).unflatten(1, (self.map.count, -1))

    def _of_between(self, a: Tensor, d: Tensor, code: Tensor | None) -> Tensor:
        features = grey_features(torch.cat([a, d], 1), self.map.levels)
        return self.between(features, code).unflatten(1, (self.map.count, -1))

    def _join(self, z_a: Tensor, z_d: Tensor, z_bc: Tensor) -> Tensor:
        if self.flat:
            return torch.cat([z_a.flatten(1), z_d.flatten(1), self._kept(z_bc)], 1)
        z_b, z_c = z_bc.chunk(2, 1)
        return interleave(z_a, z_b, z_c, z_d)

    def _kept(self, bc: Tensor) -> Tensor:
        """What belongs to b and c, (batch, 2 channels, h, w), without the rows set apart, (batch, d)."""
        b, c = bc.chunk(2, 1)
        return torch.cat([b[..., self.apart :, :].flatten(1), c.flatten(1)], 1)

    def _cut(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.flat:
            n, (channels, height, width) = math.prod(self.part), self.part
            z_a, z_d, z_b, z_c = z.split((n, n, z.shape[1] - 3 * n, n), 1)
            z_b = functional.pad(z_b.unflatten(1, (channels, height - self.apart, width)), (0, 0, self.apart, 0))
            return z_a, z_d.unflatten(1, self.part), torch.cat([z_b, z_c.unflatten(1, self.part)], 1)
        a, b, c, d = quarters(z)
        return a, d, torch.cat([b, c], 1)


def quarters(image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every second pixel of every second row, (batch, channels, height, width) to four of half the size: a, b right
    of it, c below it, d below b."""
    a, b, c, d = (image[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
    return a, b, c, d


def interleave(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Four images, (batch, channels, h, w), as the one of twice the size that they are the quarters of."""
    rows = torch.stack([torch.stack([a, b], -1).flatten(-2), torch.stack([c, d], -1).flatten(-2)], -2)
    return rows.flatten(-3, -2)


def grey_features(values: Tensor, levels: int) -> Tensor:
    """Grey levels over [-1, 1], as the noise in their cells says nothing, and which of them are the darkest and the
    brightest, where images have spikes: (batch, channels, h, w) in [0, 1] to (batch, 3 channels, h, w)."""
    last = levels - 1
    level = (values.detach() * levels).floor().clamp(0, last)
    return torch.cat([level * (2 / last) - 1, (level == 0).to(level), (level == last).to(level)], 1)
