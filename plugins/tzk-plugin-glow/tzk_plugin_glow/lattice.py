"""An image by its sublattices: every second pixel first, then those between them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn
from torch.nn import functional

from tzk_core.errors import TzkError, nearest
from tzk_core.transforms.composite import initialise
from tzk_core.transforms.layer import Layer
from tzk_plugin_glow.grey_shares import GreyShares
from tzk_plugin_glow.greys import GreyMap
from tzk_plugin_glow.network import ConvolutionalNet
from tzk_plugin_glow.pixels import PixelMap
from tzk_plugin_glow.quadratic import RAMP, QuadraticMap

DENSITIES = ("grey-levels", "grey-shares", "quadratic-spline")


def pixel_map(density: str, components: int, levels: int, *, ramp: float = RAMP) -> PixelMap:
    """The family of maps of pixels of that name.

    Args:
        density: "grey-levels" and "grey-shares" code them exactly, by logistics and by shares of fixed components.
            "quadratic-spline" is a continuous density.
        components: logistics in a mixture, knots of shares, or trapezoids in a spline.
        ramp: of a spline, see `QuadraticMap`.

    Raises:
        TzkError: for an unknown name, with the nearest.
    """
    if density == "grey-levels":
        return GreyMap(components, levels)
    if density == "grey-shares":
        return GreyShares(components, levels)
    if density == "quadratic-spline":
        return QuadraticMap(components, levels, ramp)
    raise TzkError(
        f"the density of pixels is one of {', '.join(DENSITIES)}; got {density!r}{nearest(density, DENSITIES)}"
    )


class Quarters(NamedTuple):
    """Every second pixel of every second row, in four ways: a b over c d."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor


class GreyLevels(Layer):
    """A `PixelMap` without a network, on (c, h, w) in [0, 1].

    Every element has parameters of its own.

    density, components, levels, ramp: see `pixel_map`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        components: int = 5,
        levels: int = 256,
        *,
        density: str = "grey-levels",
        ramp: float = RAMP,
    ) -> None:
        super().__init__()
        self.output_shape = tuple(shape)
        self.map = pixel_map(density, components, levels, ramp=ramp)
        start = self.map.start().view(-1, *[1] * len(shape)).expand(-1, *shape)
        self.mixtures = nn.Parameter(start.clone())

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Start the map of pixels from `inputs`, unless that was done before."""
        self.map.fit(inputs)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = self.map.forward(inputs, self.mixtures.expand(len(inputs), *self.mixtures.shape))
        return outputs, logabsdet.flatten(1).sum(1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, logabsdet = self.map.inverse(inputs, self.mixtures.expand(len(inputs), *self.mixtures.shape))
        return outputs, logabsdet.flatten(1).sum(1)


class Lattice(Layer):
    """An image in three groups of pixels, given those before (Reed et al. 2017).

        a b     first a, every second pixel of every second row, by `inner`, a flow on (channels, height/2, width/2);
        c d     then d given a, and b and c at once given a and d: every pixel has its nearest neighbours before it.

    d, b and c become Gaussian by a `PixelMap`, with parameters from two networks. z is an image again, every latent in
    the place of its pixel.

    shape: (channels, height, width), both sides even.
    density, components, levels, ramp: see `pixel_map`.
    width, blocks: of the networks.
    flat: z is a vector, first the vector of `inner`, so that the coarsest latents lead, then d, then b and c.
    code: the length of a code, (batch, code), which all networks take as an input.
    code_rows: rows of b that this layer leaves out, as the code encodes them.
    canvas: the code says what is where, see `ConvolutionalNet`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        inner: Transform,
        components: int = 5,
        *,
        width: int = 64,
        blocks: int = 2,
        density: str = "grey-levels",
        levels: int = 256,
        ramp: float = RAMP,
        flat: bool = False,
        code: int = 0,
        code_rows: int = 0,
        canvas: bool = False,
    ) -> None:
        super().__init__()
        channels, height, width_of_image = shape
        self.part = (channels, height // 2, width_of_image // 2)
        self.flat, self.code_rows = flat, code_rows
        self.output_shape = (math.prod(shape) - code_rows * channels * self.part[2],) if flat else tuple(shape)
        self.map = pixel_map(density, components, levels, ramp=ramp)
        places = self.part[1:]
        count, seen = self.map.count * channels, self.map.features_of_channel * channels

        def network(inputs: int, outputs: int) -> ConvolutionalNet:
            given: dict[str, Any] = {"places": places, "code": code, "canvas": canvas}
            return ConvolutionalNet(inputs, outputs, width, blocks=blocks, last=1, **given)

        self.diagonal, self.between = network(seen, count), network(2 * seen, 2 * count)
        for net in (self.diagonal, self.between):
            net.start_at(self.map.start())
        self.inner = inner

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Start the map of pixels from `inputs`, and the layers of `inner` from their a."""
        self.map.fit(inputs)
        initialise(self.inner, inputs[..., ::2, ::2])

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b, c, d = quarters(inputs)
        z_a, total = self.inner(a, context)
        z_d, at_d = self.map.forward(d, self._of_diagonal(a, context))
        z_bc, at_bc = self.map.forward(torch.cat([b, c], 1), self._of_between(a, d, context))
        return self._join(z_a, z_d, z_bc), total + at_d.flatten(1).sum(1) + self._without_code(at_bc).sum(1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z_a, z_d, z_bc = self._cut(inputs)
        a, total = self.inner.inverse(z_a, context)
        d, at_d = self.map.inverse(z_d, self._of_diagonal(a, context))
        bc, at_bc = self.map.inverse(z_bc, self._of_between(a, d, context))
        b, c = bc.chunk(2, 1)
        if self.code_rows:
            b = torch.cat([torch.zeros_like(b[..., : self.code_rows, :]), b[..., self.code_rows :, :]], -2)
        outputs = interleave(Quarters(a, b, c, d))
        return outputs, total + at_d.flatten(1).sum(1) + self._without_code(at_bc).sum(1)

    def _of_diagonal(self, a: Tensor, code: Tensor | None) -> Tensor:
        return self.diagonal(self.map.features(a), code).unflatten(1, (self.map.count, -1))

    def _of_between(self, a: Tensor, d: Tensor, code: Tensor | None) -> Tensor:
        features = self.map.features(torch.cat([a, d], 1))
        return self.between(features, code).unflatten(1, (self.map.count, -1))

    def _join(self, z_a: Tensor, z_d: Tensor, z_bc: Tensor) -> Tensor:
        if self.flat:
            return torch.cat([z_a.flatten(1), z_d.flatten(1), self._without_code(z_bc)], 1)
        z_b, z_c = z_bc.chunk(2, 1)
        return interleave(Quarters(z_a, z_b, z_c, z_d))

    def _without_code(self, bc: Tensor) -> Tensor:
        """b and c, (batch, 2 channels, h, w), without rows of the code, (batch, d)."""
        b, c = bc.chunk(2, 1)
        return torch.cat([b[..., self.code_rows :, :].flatten(1), c.flatten(1)], 1)

    def _cut(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.flat:
            n, (channels, height, width) = math.prod(self.part), self.part
            z_a, z_d, z_b, z_c = z.split((n, n, z.shape[1] - 3 * n, n), 1)
            z_b = functional.pad(
                z_b.unflatten(1, (channels, height - self.code_rows, width)), (0, 0, self.code_rows, 0)
            )
            return z_a, z_d.unflatten(1, self.part), torch.cat([z_b, z_c.unflatten(1, self.part)], 1)
        a, b, c, d = quarters(z)
        return a, d, torch.cat([b, c], 1)


def quarters(image: Tensor) -> Quarters:
    """Cut an image, (batch, channels, height, width), into four of half the size."""
    return Quarters(*(image[..., row::2, column::2] for row in (0, 1) for column in (0, 1)))


def interleave(parts: Quarters) -> Tensor:
    """Join four images, (batch, channels, h, w), to one of twice the size."""
    a, b, c, d = parts
    rows = torch.stack([torch.stack([a, b], -1).flatten(-2), torch.stack([c, d], -1).flatten(-2)], -2)
    return rows.flatten(-3, -2)
