"""The tiled convolution as torch multiplies, then the operator of affine map and SymLog.

rows are (groups, batch · tiles, d), the tiles of a sample one after the other; weight is (groups, d, d), raw_log_scale
and shift are (groups, tiles, d). y has the shape of the rows; log|det| without that of the weight is (groups, batch).
"""

# ruff: noqa: PLR0917 - the signature is that of the operator, which torch calls by position.

from __future__ import annotations

import torch
from torch import Tensor

from tzk_plugin_kernels.affine_symlog import affine_symlog


def forward(
    rows: Tensor, weight: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, knee: float
) -> tuple[Tensor, Tensor]:
    """y and the log|det| of affine map and SymLog."""
    product = torch.bmm(rows, weight.mT)
    x = by_sample(product, raw_log_scale)
    y, logabsdet = affine_symlog(x, raw_log_scale.flatten(1), shift.flatten(1), bound, knee)
    return y.view(rows.shape), logabsdet


def by_sample(rows: Tensor, parameters: Tensor) -> Tensor:
    """(groups, batch · tiles, d) as rows of samples, (groups, batch, tiles · d)."""
    groups, tiles, dims = parameters.shape
    return rows.reshape(groups, rows.shape[1] // tiles, tiles * dims)
