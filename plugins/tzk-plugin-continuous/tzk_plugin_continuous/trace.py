"""The trace of a Jacobian: exactly, or by Hutchinson's estimate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

GOLDEN = -7046029254386353131
"""2⁶⁴ over the golden ratio, as a signed number: the increment of SplitMix64 (Steele et al. 2014)."""


def basis(inputs: Tensor) -> Tensor:
    """All directions of (batch, *shape), (1, dims, *shape), by which the trace is exact."""
    shape = inputs.shape[1:]
    dims = math.prod(shape)
    return torch.eye(dims, dtype=inputs.dtype, device=inputs.device).view(1, dims, *shape)


def rademacher(inputs: Tensor, key: int, probes: int) -> Tensor:
    """Noise ±1, (batch, probes, *shape), a function of `key` and each sample alone.

    It is the output of a generator based on counters, started at a hash of the sample's values in float32. So neither
    the samples beside it nor its place among them matter, and nothing is shared by samples: errors average out.

    Args:
        inputs: (batch, *shape).
        key: another one makes other noise.
    """
    words = (inputs.detach().float() + 0.0).contiguous().view(torch.int32).flatten(1).long()
    dims = words.shape[1]
    counters = torch.arange(dims * probes, device=inputs.device) * GOLDEN
    own = _mixed((_mixed(words + key) ^ counters[:dims]) * GOLDEN).sum(1, keepdim=True)
    signs = 1 - 2 * (_mixed(own + counters) & 1)
    return signs.to(inputs.dtype).view(len(inputs), probes, *inputs.shape[1:])


def trace(directions: Tensor, products: Tensor, *, exact: bool) -> Tensor:
    """The mean of vᵀ J v over directions, (batch,), or over a basis the sum.

    Args:
        directions: (batch, probes, *shape) of `rademacher`, or (1, dims, *shape) of `basis`.
        products: J v of each, (batch, directions, *shape).
        exact: whether the directions are a basis.
    """
    if exact:
        return products.flatten(2).diagonal(dim1=1, dim2=2).sum(1)
    return (directions * products).flatten(2).sum(2).mean(1)


def _mixed(numbers: Tensor) -> Tensor:
    """The finaliser of SplitMix64, of whole numbers of 64 bits."""
    numbers = (numbers ^ _shifted(numbers, 30)) * -4658895280553007687
    numbers = (numbers ^ _shifted(numbers, 27)) * -7723592293110705685
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, by: int) -> Tensor:
    """Bits moved to the right, with zeros in front, as of numbers without a sign."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)
