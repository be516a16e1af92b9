"""nflows' spline of every element."""

from __future__ import annotations

import torch
from nflows.transforms.nonlinearities import PiecewiseRationalQuadraticCDF
from torch import Tensor

from tzk_plugin_fast_nflows.adopted import Adopted
from tzk_plugin_fast_nflows.spline import Raw, Spline, evaluate


class SplineCDF(Adopted, PiecewiseRationalQuadraticCDF):
    """A rational-quadratic spline for each element, with parameters of its own."""

    def _spline(
        self,
        inputs: Tensor,
        inverse: bool = False,  # noqa: FBT001, FBT002 - nflows' form
    ) -> tuple[Tensor, Tensor]:
        sizes = torch.stack([self.unnormalized_widths, self.unnormalized_heights], -2)
        slopes = self.unnormalized_derivatives
        raw = Raw(sizes.expand(inputs.shape[0], *sizes.shape), slopes.expand(inputs.shape[0], *slopes.shape))
        outputs, log_slope = evaluate(inputs, raw, Spline.of(self), inverse=inverse)
        return outputs, log_slope.flatten(1).sum(1)
