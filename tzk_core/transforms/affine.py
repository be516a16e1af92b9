"""Affine maps of every dimension (paper, Fig. 2a) or every channel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tzk_core.transforms.bounds import soft_bound, soft_bound_inverse
from tzk_core.transforms.layer import Layer

CONSTANT = 1e-6
"""The standard deviation below which a dimension says nothing of its scale."""


class Affine(Layer):
    """y = x exp(s) + t, element by element.

    s and t have the shape of one sample. s is bounded smoothly by `bound` on both sides. The map starts as the
    identity. `initialise` sets s and t from data, so that every dimension leaves with mean 0 and standard deviation 1.
    The state dict says that this was done, so that a loaded flow is not initialised again.
    """

    elementwise = True
    initialised: Tensor

    def __init__(self, shape: tuple[int, ...], bound: float = 8.0) -> None:
        super().__init__()
        self.output_shape = tuple(shape)
        self.bound = bound
        self.raw_log_scale = nn.Parameter(torch.zeros(shape))
        self.shift = nn.Parameter(torch.zeros(shape))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    @property
    def log_scale(self) -> Tensor:
        """s, of the shape of one sample."""
        return soft_bound(self.raw_log_scale, self.bound)

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Set scale and shift from `inputs`, (batch, *shape), unless that was done before.

        A dimension that is constant in `inputs`, below `CONSTANT`, is centred and keeps its scale: many layers in a row
        would else scale one deviating sample beyond floating point. Otherwise the smallest deviation is 1e-3.
        """
        if not self.initialised:
            self.standardise(inputs)

    @torch.no_grad()
    def standardise(self, inputs: Tensor, deviation: float = 1.0) -> None:
        """Set scale and shift for mean 0 and this standard deviation of the outputs.

        Whatever was set before is replaced.

        Args:
            inputs: (batch, *shape).
        """
        input_deviation = inputs.std(0, unbiased=False)
        input_deviation = torch.where(input_deviation < CONSTANT, deviation, input_deviation.clamp_min(1e-3))
        self.raw_log_scale.copy_(soft_bound_inverse(math.log(deviation) - input_deviation.log(), self.bound))
        self.shift.copy_(-inputs.mean(0) * self.log_scale.exp())
        self.initialised.fill_(1)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self.log_scale
        outputs = torch.addcmul(self.shift, inputs, log_scale.exp())
        return outputs, self._logabsdet(log_scale).expand(inputs.shape[0])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self.log_scale
        return (inputs - self.shift) * torch.exp(-log_scale), -self._logabsdet(log_scale).expand(inputs.shape[0])

    def _logabsdet(self, log_scale: Tensor) -> Tensor:
        return log_scale.sum()


class ChannelAffine(Affine):
    """`Affine` with one scale and one shift for each channel of (channels, …).

    It starts from the moments of each channel.
    """

    def __init__(self, shape: tuple[int, ...], bound: float = 8.0) -> None:
        super().__init__((shape[0], *[1] * (len(shape) - 1)), bound)
        self.output_shape = tuple(shape)
        self.places = math.prod(shape[1:])

    @torch.no_grad()
    def standardise(self, inputs: Tensor, deviation: float = 1.0) -> None:
        values = inputs.movedim(1, -1).reshape(-1, *self.shift.shape)
        super().standardise(values, deviation)

    def _logabsdet(self, log_scale: Tensor) -> Tensor:
        return self.places * log_scale.sum()
