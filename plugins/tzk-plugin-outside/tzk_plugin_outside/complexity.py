"""The complexity of an observation, without a model: the length of its compressed grey levels."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor


def code_length(T: Tensor, levels: int) -> Tensor:
    """Nats, (n,), of the grey levels of T compressed by zlib.

    Simple images, one flat colour most of all, are likely under every density of images. Serrà et al. (2020) correct
    for that by the length of a lossless code.

    Args:
        T: (n, *shape), uint8 or dequantised.
    """
    grey = T if T.dtype == torch.uint8 else (T * levels).floor().clamp(0, levels - 1).to(torch.uint8)
    bits = [8 * len(zlib.compress(row.contiguous().numpy().tobytes(), 9)) for row in grey.cpu()]
    return torch.tensor(bits, dtype=torch.float64) * math.log(2)
