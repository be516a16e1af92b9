"""Baselines without a model, for grey levels and real-valued data.

They are histograms of grey levels for every pixel, and a Gaussian.
"""

from __future__ import annotations

import math

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


def gaussian_log_prob(train: Tensor, test: Tensor) -> Tensor | None:
    """The Gaussian baseline, log N(x; mean, covariance) in nats, of test samples, (m,).

    The moments are those of the training samples.

    None where these have no full covariance: with no more training samples than dimensions, or dimensions that depend
    linearly on one another.

    Args:
        train: real values, (n, *shape); rows in which some are missing have no part.
        test: real values, (m, *shape), none of them missing.
    """
    x, y = (values.flatten(1).double() for values in (train, test))
    x = x[x.isfinite().all(1)]
    if len(x) <= x.shape[1]:
        return None
    scale = x.std(0, unbiased=False)  # units may differ by orders of magnitude
    factor, failed = torch.linalg.cholesky_ex(((x - x.mean(0)) / scale).T.cov(correction=0).reshape(len(scale), -1))
    if failed or not factor.isfinite().all():
        return None
    z = torch.linalg.solve_triangular(factor, ((y - x.mean(0)) / scale).T, upper=False)
    log_det = factor.diagonal().log().sum() + scale.log().sum()
    return -0.5 * (z.square().sum(0) + x.shape[1] * math.log(2 * math.pi)) - log_det
