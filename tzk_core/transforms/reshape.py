"""Changes of shape that keep every value."""

from __future__ import annotations

import math

from torch import Tensor

from tzk_core.transforms.layer import Layer


class Flatten(Layer):
    """(c, h, w) to (c h w,), as most nflows transforms expect; log|det| = 0."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.input_shape = tuple(shape)
        self.output_shape = (math.prod(shape),)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs.flatten(1), inputs.new_zeros(inputs.shape[0])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs.view(-1, *self.input_shape), inputs.new_zeros(inputs.shape[0])
