"""Activation normalisation: a scale and shift a channel, from data (Glow, Section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tzk_core.transforms.affine import ChannelAffine
from tzk_core.transforms.bounds import soft_bound_inverse

CONSTANT = 1e-4
"""Channels that deviate less than this count as constant: they are centred and keep their scale."""


class ActNorm(ChannelAffine):
    """y = x exp(s) + t with s and t of one value a channel.

    It starts as the identity; `initialise` takes every channel to mean 0 and standard deviation 1. The state dict
    records that this was done.

    shape: (channels, height, width), or (n,) for a vector of n channels.
    bound: of s, smoothly, on both sides.
    """

    elementwise = False

    def __init__(self, shape: tuple[int, ...], bound: float = 6.0) -> None:
        super().__init__(shape, bound)

    @torch.no_grad()
    def initialise(self, inputs: Tensor) -> None:
        """Set scale and shift from `inputs`, (batch, *shape), unless that was done before.

        An empty batch sets nothing, and a constant channel is only centred.
        """
        if len(inputs):
            super().initialise(inputs)

    @torch.no_grad()
    def standardise(self, inputs: Tensor, deviation: float = 1.0) -> None:
        values = inputs.transpose(0, 1).flatten(1)
        before = values.std(1, unbiased=False).view_as(self.shift)
        log_scale = torch.where(before > CONSTANT, math.log(deviation) - before.log(), 0.0)
        self.raw_log_scale.copy_(soft_bound_inverse(log_scale, self.bound))
        self.shift.copy_(-values.mean(1).view_as(self.shift) * self.log_scale.exp())
        self.initialised.fill_(value=True)
