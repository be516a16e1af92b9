"""Increasing maps of single values whose parameters come from a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from tzk_core.transforms.bounds import soft_bound


class ElementMap(ABC):
    """A family of increasing maps of the real line with `count` parameters.

    Values are (batch, c, h, w), parameters (batch, count, c, h, w); no method has a branch on values.
    """

    count: int

    def start(self) -> Tensor:
        """Initial parameters, (count,): the identity, or close to it."""
        return torch.zeros(self.count)

    @abstractmethod
    def forward(self, inputs: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """The map, and the logarithm of its derivative at `inputs`."""

    @abstractmethod
    def inverse(self, outputs: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse map of `outputs`, and the logarithm of its derivative there."""


class AffineMap(ElementMap):
    """y = x exp(a) + b (Real NVP), with a bounded smoothly on both sides."""

    count = 2

    def __init__(self, bound: float = 3.0) -> None:
        self.bound = bound

    def forward(self, inputs: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = parameters.unbind(1)
        log_scale = soft_bound(raw, self.bound)
        return torch.addcmul(shift, inputs, log_scale.exp()), log_scale

    def inverse(self, outputs: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = parameters.unbind(1)
        log_scale = soft_bound(raw, self.bound)
        return (outputs - shift) * torch.exp(-log_scale), -log_scale
