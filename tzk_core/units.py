"""Nats to bits: per image, per dimension modelled, per pixel of the original data."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor

Value = TypeVar("Value", float, Tensor)

NATS_PER_BIT = math.log(2)


def bits_per_image(log_prob: Value, dims: int, levels: int | None) -> Value:
    """Bits of one observation from its log-density in nats.

    With `levels` grey levels the density is over [0, 1] for each of `dims` dimensions, a level being 1/levels wide:
    a uniform density is then log2(levels) bits a dimension exactly. With None it is -log2 p(T) as it is.
    """
    return dims * (math.log2(levels) if levels else 0.0) - log_prob / NATS_PER_BIT


def bits_per_dim(log_prob: Value, dims: int, levels: int | None) -> Value:
    """Bits per dimension of all `dims` that are modelled."""
    return bits_per_image(log_prob, dims, levels) / dims
