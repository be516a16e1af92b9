"""How complex an observation is, whatever any model knows: the length of its grey levels compressed without loss."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor


def code_length(T: Tensor, levels: int) -> Tensor:
    """Nats, (n,), in which zlib writes the grey levels of T, (n, *shape), uint8 or dequantised.

    What is simple, one flat colour most of all, is likely under every density of images; Serrà et al. (2020) subtract
    what a compressor makes of it.
    """
    grey = T if T.dtype == torch.uint8 else (T * levels).floor().clamp(0, levels - 1).to(torch.uint8)
    bits = [8 * len(zlib.compress(row.contiguous().numpy().tobytes(), 9)) for row in grey.cpu()]
    return torch.tensor(bits, dtype=torch.float64) * math.log(2)
