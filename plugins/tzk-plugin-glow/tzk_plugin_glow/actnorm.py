"""Activation normalisation: a scale and a shift for every channel, started from data (Glow, Section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tzk_core.transforms.bounds import soft_bound, soft_bound_inverse
from tzk_core.transforms.layer import Layer

CONSTANT = 1e-4
"""Channels that deviate less than this count as constant: they are centred and keep their scale."""


class ActNorm(Layer):
    """y = x exp(s) + t with s and t of one value a channel; s is bounded smoothly by `bound` on both sides.

    `shape` is (channels, height, width), or (n,) for a vector of n channels. It starts as the identity; `initialise`
    takes every channel to mean 0 and standard deviation 1. That this was done is kept in the state dict.
    """

    initialised: Tensor

    def __init__(self, shape: tuple[int, ...], bound: float = 6.0) -> None:
        super().__init__()
        self.output_shape = tuple(shape)
        self.bound = bound
        each = (shape[0], *[1] * (len(shape) - 1))
        self.places = torch.Size(shape[1:]).numel()
        self.raw_log_scale = nn.Parameter(torch.zeros(each))
        self.shift = nn.Parameter(torch.zeros(each))
        self.register_buffer("initialised", torch.tensor(False))

    @property
    def log_scale(self) -> Tensor:
        return soft_bound(self.raw_log_scale, self.bound)

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Sets scale and shift from `inputs`, (batch, *shape), unless that was done before; an empty batch sets
        nothing, and a constant channel is only centred."""
        if self.initialised or not len(inputs):
            return
        values = inputs.transpose(0, 1).flatten(1)
        deviation = values.std(1, unbiased=False).view_as(self.shift)
        log_scale = torch.where(deviation > CONSTANT, -deviation.log(), 0.0)
        self.raw_log_scale.copy_(soft_bound_inverse(log_scale, self.bound))
        self.shift.copy_(-values.mean(1).view_as(self.shift) * self.log_scale.exp())
        self.initialised.fill_(True)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self.log_scale
        outputs = torch.addcmul(self.shift, inputs, log_scale.exp())
        return outputs, (self.places * log_scale.sum()).expand(inputs.shape[0])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self.log_scale
        outputs = (inputs - self.shift) * torch.exp(-log_scale)
        return outputs, (-self.places * log_scale.sum()).expand(inputs.shape[0])
