"""Uniform dequantisation: grey levels to real values in the unit interval."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tzk_core.errors import TzkError

FINE = 2**15  # steps of noise within one grey level


def dequantise(T: Tensor, generator: Generator, levels: int | None = 256) -> Tensor:
    """(v + u) / levels with u uniform on the open interval (0, 1), independently for each element.

    T: uint8 `(batch, *shape)`, grey levels v in 0 .. levels - 1. Returns float32 of that shape, strictly
    inside (v / levels, (v + 1) / levels). With `levels` None, T is real-valued already and comes back as
    float32, no random numbers drawn. Raises TzkError if the type of T does not fit.

    u is taken from the midpoints (k + 1/2) / 2^15. Then v + u is an odd number of 2^-16, which float32 holds
    exactly for any v < 256: the mean of u is exactly 1/2, and no value falls on 0, 1, or into the cell above.
    With `torch.rand` one in 130,000 of the brightest pixels would be rounded up to 1, where a logit is
    infinite.
    """
    if levels is None:
        if not T.is_floating_point():
            raise TzkError(f"data without grey levels (levels = None): expected real values; got {T.dtype}")
        return T.float()
    if T.dtype != torch.uint8:
        raise TzkError(f"data of {levels} grey levels: expected uint8; got {T.dtype}")
    noise = torch.rand(T.shape, generator=generator).to(T.device)
    units = noise.mul_(FINE).floor_().mul_(2).add_(1)  # odd numbers below 2^16
    return units.add_(T, alpha=2 * FINE).div_(2 * FINE * levels)
