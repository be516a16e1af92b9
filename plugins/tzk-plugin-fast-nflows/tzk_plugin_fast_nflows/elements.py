"""nflows' spline of every element."""

from __future__ import annotations

import torch
from nflows.transforms.nonlinearities import PiecewiseRationalQuadraticCDF
from torch import Tensor

from tzk_plugin_fast_nflows.adopted import Adopted
from tzk_plugin_fast_nflows.spline import Spline
from tzk_plugin_fast_nflows.spline_gradient import spline_of


class SplineCDF(Adopted, PiecewiseRationalQuadraticCDF):
    """A rational-quadratic spline for each element, with parameters of its own."""

    def _spline(
        self,
        inputs: Tensor,
        inverse: bool = False,  # noqa: FBT001, FBT002 - nflows' form
    ) -> tuple[Tensor, Tensor]:
        bins = self.unnormalized_widths.shape[-1]
        parameters = torch.cat([self.unnormalized_widths, self.unnormalized_heights, self.unnormalized_derivatives], -1)
        parameters = parameters.expand(inputs.shape[0], *parameters.shape)
        outputs, log_slope = spline_of(inputs, parameters, Spline.of(self, bins), inverse=inverse)
        return outputs, log_slope.flatten(1).sum(1)
