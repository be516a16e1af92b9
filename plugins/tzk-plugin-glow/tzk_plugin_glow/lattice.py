"""An image by its sublattices: every second pixel first, then those between them given all that came before."""

from __future__ import annotations

import math

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn

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
    ) -> None:
        super().__init__()
        channels, height, width_of_image = shape
        self.part = (channels, height // 2, width_of_image // 2)
        self.flat = flat
        self.output_shape = (math.prod(shape),) if flat else tuple(shape)
        self.map = GreyMap(components, levels)
        places = self.part[1:]
        self.diagonal = ConvolutionalNet(3 * channels, self.map.count * channels, width, blocks, last=1, places=places)
        self.between = ConvolutionalNet(
            6 * channels, self.map.count * 2 * channels, width, blocks, last=1, places=places
        )
        for net in (self.diagonal, self.between):
            net.start_at(self.map.start())
        self.inner = inner

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Starts the layers of `inner` from what reaches them."""
        initialise(self.inner, inputs[..., ::2, ::2])

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b, c, d = (inputs[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
        z_a, total = self.inner(a)
        z_d, at_d = self.map.forward(d, self._of_diagonal(a))
        z_bc, at_bc = self.map.forward(torch.cat([b, c], 1), self._of_between(a, d))
        return self._join(z_a, z_d, z_bc), total + at_d.flatten(1).sum(1) + at_bc.flatten(1).sum(1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_a, z_d, z_bc = self._cut(inputs)
        a, total = self.inner.inverse(z_a)
        d, at_d = self.map.inverse(z_d, self._of_diagonal(a))
        bc, at_bc = self.map.inverse(z_bc, self._of_between(a, d))
        b, c = bc.chunk(2, 1)
        outputs = _interleave(a, b, c, d)
        return outputs, total + at_d.flatten(1).sum(1) + at_bc.flatten(1).sum(1)

    def _of_diagonal(self, a: Tensor) -> Tensor:
        return self.diagonal(self._features(a)).unflatten(1, (self.map.count, -1))

    def _of_between(self, a: Tensor, d: Tensor) -> Tensor:
        return self.between(self._features(torch.cat([a, d], 1))).unflatten(1, (self.map.count, -1))

    def _features(self, values: Tensor) -> Tensor:
        """Grey levels over [-1, 1], as the noise in their cells says nothing, and which of them are the darkest and the
        brightest, where images have spikes: (batch, 3 channels, h, w)."""
        last = self.map.levels - 1
        level = (values.detach() * self.map.levels).floor().clamp(0, last)
        return torch.cat([level * (2 / last) - 1, (level == 0).to(level), (level == last).to(level)], 1)

    def _join(self, z_a: Tensor, z_d: Tensor, z_bc: Tensor) -> Tensor:
        if self.flat:
            return torch.cat([z_a.flatten(1), z_d.flatten(1), z_bc.flatten(1)], 1)
        z_b, z_c = z_bc.chunk(2, 1)
        return _interleave(z_a, z_b, z_c, z_d)

    def _cut(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.flat:
            n, (channels, *sides) = math.prod(self.part), self.part
            z_a, z_d, z_bc = z.split((n, n, 2 * n), 1)
            return z_a, z_d.unflatten(1, self.part), z_bc.unflatten(1, (2 * channels, *sides))
        a, b, c, d = (z[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
        return a, d, torch.cat([b, c], 1)


def _interleave(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Four images, (batch, channels, h, w), as the one of twice the size that they are the quarters of."""
    rows = torch.stack([torch.stack([a, b], -1).flatten(-2), torch.stack([c, d], -1).flatten(-2)], -2)
    return rows.flatten(-3, -2)
