"""A lattice with a code before its latents: a few dimensions that condition all others."""

from __future__ import annotations

import math
from typing import Any

import torch
from nflows.transforms.base import Transform
from torch import Tensor, nn
from torch.nn import functional

from tzk_core.transforms.bounds import soft_bound, soft_bound_inverse
from tzk_core.transforms.composite import initialise
from tzk_core.transforms.layer import Layer
from tzk_plugin_glow.lattice import Lattice, Quarters, interleave, quarters
from tzk_plugin_glow.network import ConvolutionalNet
from tzk_plugin_glow.pixels import PixelMap
from tzk_plugin_glow.quadratic import RAMP

INFORMED = 0.75
"""The share of the variance of the code that is the image's, at the start."""


class Summary(nn.Module):
    """A network from the quarters of an image, (batch, channels, h, w), to (batch, outputs).

    It has three convolutions, the last two of which halve the sides, and two linear layers.
    """

    adaptive = True

    def __init__(self, shape: tuple[int, ...], outputs: int, width: int) -> None:
        super().__init__()
        channels, height, columns = shape
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
                nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            ]
        )
        places = -(-height // 4) * -(-columns // 4)
        self.wide = nn.Linear(2 * width * places, 4 * width)
        self.last = nn.Linear(4 * width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs.contiguous(memory_format=torch.channels_last)
        for convolution in self.convolutions:
            hidden = functional.relu(convolution(hidden))
        return self.last(functional.relu(self.wide(hidden.flatten(1))))


class LeadingLattice(Layer):
    """`Lattice` with a code u' before its latents, which condition on it.

    The first rows of the quarter b are set apart. They become Gaussian u given their surroundings. A coupling makes
    u' = u exp(s) + t of them, with s and t from a network on the rest of the image. The rest goes through a lattice
    whose networks take u' as an input.

    So u' is what a variational autoencoder samples as its latent, with u as the noise. Here the noise is that of
    pixels, as in bits back coding (Hinton & van Camp 1993; Townsend et al. 2019). Nothing is lost: the likelihood is
    exact and the map is a bijection. In the inverse u' gives the rest of the image, the rest gives s and t, these u,
    and u the pixels set apart.

    T is in [0, 1]; z is (d,), first u', of channels x rows x width / 2 dimensions.

    shape: (channels, height, width), both sides even.
    inner, components, width, blocks, density, levels, ramp: of the lattice.
    rows: of b, that are set apart.
    summary: the width of the network of s and t.
    bound: of s, smoothly, on both sides.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        inner: Transform,
        rows: int = 1,
        *,
        components: int = 5,
        width: int = 64,
        blocks: int = 2,
        density: str = "grey-levels",
        levels: int = 256,
        ramp: float = RAMP,
        summary: int = 32,
        bound: float = 3.0,
    ) -> None:
        super().__init__()
        channels, height, columns = shape
        half = (channels, height // 2, columns // 2)
        self.rows, self.bound = rows, bound
        self.code_shape = (channels, rows, columns // 2)
        self.code = channels * rows * (columns // 2)
        pixels: dict[str, Any] = {"components": components, "density": density, "levels": levels, "ramp": ramp}
        networks: dict[str, Any] = {"width": width, "blocks": blocks, "code": self.code, "code_rows": rows}
        self.lattice = Lattice(shape, inner, flat=True, **pixels, **networks)
        self.output_shape = (math.prod(shape),)
        count, seen = self.map.count * channels, self.map.features_of_channel * channels
        self.pixels = ConvolutionalNet(3 * seen, count, 16, last=1, places=(rows, columns // 2))
        self.pixels.start_at(self.map.start())
        self.summary = Summary((4 * seen, *half[1:]), 2 * self.code, summary)

    @property
    def map(self) -> PixelMap:
        """The map of pixels, which belongs to the lattice."""
        return self.lattice.map

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Start the map of pixels, s, t and the inner flow from data.

        s starts at a constant. t starts at the output of the network, scaled to mean 0 and `INFORMED` of the variance
        of u', which is 1.
        """
        self.map.fit(inputs)
        weight, bias = self.summary.last.weight, self.summary.last.bias
        bias.zero_()
        _, t = self._summarised(quarters(inputs))
        scale = math.sqrt(INFORMED) / t.std(0, correction=0).clamp_min(1e-6)
        weight[self.code :].mul_(scale.unsqueeze(1))
        bias[self.code :] = -t.mean(0) * scale
        weight[: self.code] = 0
        bias[: self.code] = soft_bound_inverse(torch.tensor(0.5 * math.log1p(-INFORMED)), self.bound)
        initialise(self.lattice.inner, quarters(inputs).a)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        image = quarters(inputs)
        u, at_u = self.map.forward(image.b[..., : self.rows, :], self._surroundings(image))
        log_scale, shift = self._summarised(image)
        code = u.flatten(1) * log_scale.exp() + shift
        z, total = self.lattice(inputs, code)
        return torch.cat([code, z], 1), total + at_u.flatten(1).sum(1) + log_scale.sum(1)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        code, z = inputs.split((self.code, inputs.shape[1] - self.code), 1)
        rest, total = self.lattice.inverse(z, code)
        image = quarters(rest)
        log_scale, shift = self._summarised(image)
        u = ((code - shift) * torch.exp(-log_scale)).unflatten(1, self.code_shape)
        pixels, at_u = self.map.inverse(u, self._surroundings(image))
        outputs = interleave(image._replace(b=torch.cat([pixels, image.b[..., self.rows :, :]], -2)))
        return outputs, total + at_u.flatten(1).sum(1) - log_scale.sum(1)

    def _surroundings(self, image: Quarters) -> Tensor:
        """Parameters of the pixels set apart, from the other quarters of their rows.

        Returns:
            (batch, count, channels, rows, width / 2).
        """
        rows = torch.cat([quarter[..., : self.rows, :] for quarter in (image.a, image.c, image.d)], 1)
        return self.pixels(self.map.features(rows)).unflatten(1, (self.map.count, -1))

    def _summarised(self, image: Quarters) -> tuple[Tensor, Tensor]:
        """s, bounded on both sides, and t, (batch, code), without the pixels set apart."""
        a, b, c, d = image
        without = torch.cat([torch.zeros_like(b[..., : self.rows, :]), b[..., self.rows :, :]], -2)
        raw, shift = self.summary(self.map.features(torch.cat([a, without, c, d], 1))).chunk(2, 1)
        return soft_bound(raw, self.bound), shift
