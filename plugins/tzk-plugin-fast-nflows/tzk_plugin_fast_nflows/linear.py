"""nflows' matrices as LU factors, from one table and without a cache."""

from __future__ import annotations

import torch
from nflows.transforms.conv import OneByOneConvolution
from nflows.transforms.lu import LULinear
from torch import Tensor
from torch.nn import functional

from tzk_plugin_fast_nflows.adopted import Adopted


class LU(Adopted, LULinear):
    """y = L U x + b, without a cache.

    What nflows caches is computed anew: it would be stale after loading, and of one type.
    """

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward_no_cache(inputs)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inverse_no_cache(inputs)

    def inverse_no_cache(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._create_lower_upper()
        outputs = (inputs - self.bias).T
        outputs = torch.linalg.solve_triangular(lower, outputs, upper=False, unitriangular=True)
        outputs = torch.linalg.solve_triangular(upper, outputs, upper=True)
        return outputs.T, -self.logabsdet().expand(inputs.shape[0])

    def forward_no_cache(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._create_lower_upper()
        outputs = functional.linear(functional.linear(inputs, upper), lower, self.bias)
        return outputs, self.logabsdet().expand(inputs.shape[0])

    def _create_lower_upper(self) -> tuple[Tensor, Tensor]:
        """L with ones on its diagonal, and U, (features, features) each."""
        n, device = self.features, self.bias.device
        rows, columns = torch.tril_indices(n, n, -1, device=device)
        places = [rows * n + columns]
        rows, columns = torch.triu_indices(n, n, 1, device=device)
        places.append(rows * n + columns)
        entries = torch.cat([self.lower_entries, self.upper_entries])
        table = entries.new_zeros(n * n).index_copy(0, torch.cat(places), entries).view(n, n)
        diagonal = self.upper_diag
        return table.tril(-1) + torch.eye(n, dtype=table.dtype, device=device), table.triu(1) + diagonal.diag()


class Convolution(LU, OneByOneConvolution):
    """A 1x1 convolution after a fixed permutation of the channels (Glow)."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return OneByOneConvolution.forward(self, inputs, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return OneByOneConvolution.inverse(self, inputs, context)

    def _lu_forward_inverse(
        self,
        inputs: Tensor,
        inverse: bool = False,  # noqa: FBT001, FBT002 - nflows' form
    ) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = inputs.shape
        rows = inputs.permute(0, 2, 3, 1).reshape(-1, channels)
        outputs, logabsdet = self.inverse_no_cache(rows) if inverse else self.forward_no_cache(rows)
        outputs = outputs.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return outputs, logabsdet.reshape(batch, -1).sum(1)
