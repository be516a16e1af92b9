"""The regressor of the paper: four linear layers of 70 units with PReLU (Section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Regressor(nn.Sequential):
    """(…, inputs) to (…, outputs); the last layer starts at zero, so that whatever it parametrises starts neutral."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 70, layers: int = 4) -> None:
        widths = [inputs] + [hidden] * (layers - 1)
        parts: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            parts += [nn.Linear(before, after), nn.PReLU()]
        super().__init__(*parts, nn.Linear(widths[-1], outputs))

    def initialise(self, generator: torch.Generator) -> None:
        """He-normal weights drawn from `generator`, zero biases, zero last layer."""
        linear = [part for part in self if isinstance(part, nn.Linear)]
        for layer in linear:
            deviation = math.sqrt(2 / layer.in_features) if layer is not linear[-1] else 0.0
            noise = torch.randn(layer.weight.shape, generator=generator)
            with torch.no_grad():
                layer.weight.copy_(deviation * noise)
                layer.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs)  # type: ignore[no-untyped-call]
