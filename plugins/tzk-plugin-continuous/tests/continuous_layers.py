"""Layers for the tests: of a linear equation, and with parameters away from their start."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tzk_plugin_continuous.ffjord import Ffjord


class _Linear(nn.Module):
    """f(t, x) = A x + b, in the place of a network."""

    def __init__(self, matrix: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.matrix, self.offset = nn.Parameter(matrix), nn.Parameter(offset)

    def forward(self, t: Tensor, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.matrix.T + self.offset, directions @ self.matrix.T


def linear(matrix: Tensor, offset: Tensor, **arguments: object) -> Ffjord:
    """The layer of dx/dt = A x + b, in float64 and evaluation mode."""
    layer = Ffjord((len(matrix),), **arguments)  # type: ignore[arg-type]
    layer.dynamics = _Linear(matrix, offset)  # type: ignore[assignment]
    return layer.double().eval()


def perturbed(layer: Ffjord, by: float = 0.5) -> Ffjord:
    """The layer in float64 and evaluation mode, with noise of this deviation in all of its parameters."""
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.double().parameters():
        parameter.data += by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return layer.eval()
