"""Variational dequantisation (Flow++, Section 3.1) as an invertible layer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tzk_core.errors import TzkError
from tzk_core.transforms.composite import Composite
from tzk_core.transforms.layer import Layer
from tzk_core.transforms.squeeze import Squeeze
from tzk_plugin_glow.coupling import Coupling
from tzk_plugin_glow.network import ConvolutionalNet

BOUND = 1.0
"""Of the log-scales of logits: noise pressed against the edge of a cell would round into the next cell."""


class Dequantisation(Layer):
    """Grey levels x with noise u to x with noise G(u; x).

    Inputs are (x + u) / levels, and G(·; x) is a flow on the unit cube. Uniform u becomes noise of the density q(· | x)
    of G, and log p of the data becomes Flow++'s variational bound with that q. Every element has a map given x alone,
    then couplings map one half given the other and x. Values are in [0, 1], and none leaves its cell. The couplings map
    logit(u), where the edges are at infinity, and noise stays a rounding away from an edge. The layer starts at the
    identity with the map "affine", else close to it.

    shape: (channels, height, width), both sides even.
    levels: a power of two, so that cells are exact in floating point.
    map, components, width, blocks: of the couplings, see `Coupling`.
    steps: how many couplings follow the map given x alone.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int = 256,
        map: str = "affine",
        *,
        components: int = 4,
        width: int = 16,
        steps: int = 2,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        if levels < 2 or levels & (levels - 1):
            raise TzkError(f"variational-dequantisation expects levels that are a power of two; got {levels}")
        if len(shape) != 3 or shape[1] % 2 or shape[2] % 2:
            raise TzkError(
                f"variational-dequantisation expects (channels, height, width) with even sides; got {tuple(shape)}"
            )
        self.output_shape = tuple(shape)
        self.levels = levels
        self.squeeze = Squeeze(shape)
        inner = self.squeeze.output_shape
        self.features = ConvolutionalNet(inner[0], width, width, blocks=blocks, zero=False)
        arguments = {"map": map, "components": components, "width": width, "context_channels": width, "bound": BOUND}
        self.couplings = Composite(
            [
                Coupling(inner, mask="context", blocks=0, **arguments),  # type: ignore[arg-type]
                *(Coupling(inner, blocks=blocks, swap=step % 2 == 1, **arguments) for step in range(steps)),  # type: ignore[arg-type]
            ]
        )

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        cell, noise, features = self._cut(inputs)
        logits, before = _logit(noise)
        logits, between = self.couplings(logits, features)
        outputs, after = self._join(cell, logits)
        return outputs, before + between + after

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        cell, noise, features = self._cut(inputs)
        logits, before = _logit(noise)
        logits, between = self.couplings.inverse(logits, features)
        outputs, after = self._join(cell, logits)
        return outputs, before + between + after

    def _margin(self, like: Tensor) -> float:
        """The spacing of floating-point numbers in the brightest cells, in units of a cell."""
        return torch.finfo(like.dtype).eps * self.levels / 2

    def _cut(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Grey levels and noise in (0, 1), squeezed, and the features of the grey levels."""
        scaled = self.squeeze(inputs)[0] * self.levels
        cell = scaled.detach().floor().clamp(0, self.levels - 1)
        margin = self._margin(inputs)
        return cell, (scaled - cell).clamp(margin, 1 - margin), self.features(cell * (2 / self.levels) - 1)

    def _join(self, cell: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Noise of the logits back in its cells, and the log-determinant of the sigmoid."""
        log_slope = functional.logsigmoid(logits) + functional.logsigmoid(-logits)
        margin = self._margin(logits)
        noise = torch.sigmoid(logits).clamp(margin, 1 - margin)
        return self.squeeze.inverse((cell + noise) / self.levels)[0], log_slope.flatten(1).sum(1)


def _logit(noise: Tensor) -> tuple[Tensor, Tensor]:
    log_p, log_q = noise.log(), torch.log1p(-noise)
    return log_p - log_q, -(log_p + log_q).flatten(1).sum(1)
