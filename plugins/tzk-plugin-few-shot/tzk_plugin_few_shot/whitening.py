"""A fixed linear map onto uncorrelated coordinates, set in closed form and not trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzk_core.transforms.layer import Layer


class Whitening(Layer):
    """y = V (x - centre) over all dimensions of x; the identity until `set`.

    V and centre are buffers: a matrix of d² entries cannot be learnt from few samples.
    """

    centre: Tensor
    matrix: Tensor
    log_determinant: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        dims = math.prod(shape)
        self.output_shape = tuple(shape)
        self.register_buffer("centre", torch.zeros(dims))
        self.register_buffer("matrix", torch.eye(dims))
        self.register_buffer("log_determinant", torch.zeros(()))

    @torch.no_grad()
    def set(self, centre: Tensor, matrix: Tensor) -> None:
        """Set the centre, (d,), and an invertible V, (d, d)."""
        self.centre.copy_(centre)
        self.matrix.copy_(matrix)
        self.log_determinant.copy_(torch.linalg.slogdet(matrix.double()).logabsdet)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = (inputs.flatten(1) - self.centre) @ self.matrix.T
        return outputs.view(inputs.shape), self.log_determinant.expand(inputs.shape[0])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = torch.linalg.solve(self.matrix, inputs.flatten(1).T).T + self.centre
        return outputs.reshape(inputs.shape), -self.log_determinant.expand(inputs.shape[0])
