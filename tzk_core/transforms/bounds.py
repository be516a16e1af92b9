"""Smooth bounds for log-scales and for what regressors emit."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_bound(values: Tensor, bound: float) -> Tensor:
    """Values squashed smoothly into (-bound, bound); the identity to first order at zero."""
    return bound * torch.tanh(values / bound)


def soft_bound_inverse(values: Tensor, bound: float) -> Tensor:
    """What `soft_bound` maps to `values`; values outside 99 % of the bound are clamped to it."""
    return bound * torch.atanh((values / bound).clamp(-0.99, 0.99))
