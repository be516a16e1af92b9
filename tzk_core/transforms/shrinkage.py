"""Covariances from few samples in many dimensions, shrunk by their own sampling error."""

from __future__ import annotations

import torch
from torch import Tensor


def shrunk_covariance(deviations: Tensor, freedom: int | None = None) -> Tensor:
    """Covariance with its off-diagonal shrunk towards zero.

    Ledoit and Wolf's intensity with the diagonal as target (Schäfer and Strimmer 2005): the sampling variance of the
    off-diagonal entries over their square, summed over all of them. One sample of variance 1, the shared prior's, is
    counted in. The result is therefore positive definite for every n, and the identity for n = 0.

    Args:
        deviations: (n, d), samples less their mean.
        freedom: the degrees of freedom that divide the sum of squares; None for n.

    Returns:
        (d, d).
    """
    n = len(deviations)
    freedom = n if freedom is None else freedom
    scatter = deviations.T @ deviations
    # the squares of all products x_i x_j of a sample add up to (|x|²)², from which those with i = j are taken
    squares = deviations.square()
    products = (squares.sum(1).square() - squares.square().sum(1)).sum()
    off_diagonal = scatter.square().sum() - scatter.diagonal().square().sum()
    share = torch.ones_like(products)
    if n > 1 and off_diagonal > 0:
        share = ((n * products - off_diagonal) / ((n - 1) * off_diagonal)).clamp(0.0, 1.0)
    variance = (scatter.diagonal() + 1) / (freedom + 1)
    covariance = (1 - share) * scatter / (freedom + 1)
    covariance.diagonal().copy_(variance)
    return covariance
