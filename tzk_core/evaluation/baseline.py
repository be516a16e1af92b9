"""The baseline without a model: an independent histogram of grey levels for every pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def histogram_bits(train: Tensor, test: Tensor, *, levels: int = 256, pseudo_count: float = 0.1) -> Tensor:
    """Bits of test images, (m,), under per-pixel histograms fitted on training images.

    Args:
        train: integer grey levels, (n, *shape).
        test: integer grey levels, (m, *shape).
        pseudo_count: added to every count.
    """
    flat = train.flatten(1).long()
    dims = flat.shape[1]
    counts = torch.zeros(dims, levels, dtype=torch.float64)
    counts.scatter_add_(1, flat.T, torch.ones(1, dtype=torch.float64).expand(dims, len(flat)))
    log_prob = torch.log2((counts + pseudo_count) / (len(flat) + levels * pseudo_count))
    bits = [-log_prob[torch.arange(dims), chunk.flatten(1).long()].sum(1) for chunk in test.split(1000)]
    return torch.cat(bits)
