"""Smooth bounds for log-scales and for the outputs of regressors."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_bound(values: Tensor, bound: float) -> Tensor:
    """Squash values smoothly into (-bound, bound); to first order at zero, the identity."""
    return bound * torch.tanh(values / bound)


def soft_bound_inverse(values: Tensor, bound: float) -> Tensor:
    """Invert `soft_bound`; values outside 99 % of the bound are clamped to it."""
    return bound * torch.atanh((values / bound).clamp(-0.99, 0.99))
