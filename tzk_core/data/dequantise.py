"""Uniform dequantisation: grey levels to real values in the unit interval."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tzk_core.errors import TzkError

FINE = 2**15  # steps of noise within one grey level


def dequantise(T: Tensor, generator: Generator, levels: int | None = 256) -> Tensor:
    """(v + u) / levels, with u uniform on the open interval (0, 1).

    u is one of the midpoints (k + 1/2) / 2^15. Then v + u is an odd number of 2^-16, which float32 holds exactly for
    any v < 256. The mean of u is exactly 1/2, and no value is 0, 1 or in the cell above. With `torch.rand`, one in
    130,000 of the brightest pixels would be rounded up to 1, where a logit is infinite.

    Args:
        T: uint8 (batch, *shape), grey levels v in 0 .. levels - 1; real-valued if `levels` is None.
        generator: of u; unused if `levels` is None.
        levels: the number of grey levels.

    Returns:
        float32 (batch, *shape), strictly inside (v / levels, (v + 1) / levels); T itself if `levels` is None.

    Raises:
        TzkError: if the type of T does not fit.
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
