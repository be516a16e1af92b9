"""The tiled convolution as torch multiplies, then the operator of affine map and SymLog.

rows are (groups, batch · tiles, d), the tiles of a sample one after the other; weight is (groups, d, d), raw_log_scale
and shift are (groups, tiles, d). y is as the rows; log|det| without that of the weight is (groups, batch).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tzk_plugin_kernels.affine_symlog import affine_symlog


def forward(
    rows: Tensor, weight: Tensor, raw_log_scale: Tensor, shift: Tensor, bound: float, knee: float
) -> tuple[Tensor, Tensor]:
    """y and the log|det| of affine map and SymLog."""
    product = torch.bmm(rows, weight.mT)
    given = by_sample(product, raw_log_scale)
    y, logabsdet = affine_symlog(given, raw_log_scale.flatten(1), shift.flatten(1), bound, knee)
    return y.view(rows.shape), logabsdet


def by_sample(rows: Tensor, parameters: Tensor) -> Tensor:
    """Rows of tiles, (groups, batch · tiles, d), as rows of samples, (groups, batch, tiles · d)."""
    groups, tiles, dims = parameters.shape
    return rows.reshape(groups, rows.shape[1] // tiles, tiles * dims)
