"""nflows' masked autoregressive layers, whose inverse costs one evaluation of the network."""

from __future__ import annotations

from nflows.transforms.autoregressive import (
    AutoregressiveTransform,
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
)
from torch import Tensor, nn
from torch.nn import functional

from tzk_plugin_fast_nflows.adopted import Adopted
from tzk_plugin_fast_nflows.inversion import counts_of, invert
from tzk_plugin_fast_nflows.spline import Spline
from tzk_plugin_fast_nflows.spline_gradient import spline_of


class _Autoregressive(Adopted, AutoregressiveTransform):
    """A layer of a masked autoregressive flow; `_solve` inverts one element."""

    _counts: list[list[int]] | None
    _drops: bool

    def _prepare(self) -> None:
        self._counts = counts_of(self.autoregressive_net)
        parts = self.autoregressive_net.modules()
        self._drops = any(isinstance(part, nn.Dropout) and part.p > 0 for part in parts)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self._counts is None or (self._drops and self.training):
            return super().inverse(inputs, context)
        return invert(self.autoregressive_net, inputs, counts=self._counts, solve=self._solve, context=context)

    def _solve(self, output: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class AffineAutoregressive(_Autoregressive, MaskedAffineAutoregressiveTransform):
    """y_i = s(x_<i) x_i + t(x_<i)."""

    def _solve(self, output: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        scale = functional.softplus(parameters[:, 0]) + self._epsilon
        return (output - parameters[:, 1]) / scale, -scale.log()


class SplineAutoregressive(_Autoregressive, MaskedPiecewiseRationalQuadraticAutoregressiveTransform):
    """y_i is a rational-quadratic spline of x_i whose parameters follow from x_<i."""

    def _elementwise(
        self,
        inputs: Tensor,
        autoregressive_params: Tensor,
        inverse: bool = False,  # noqa: FBT001, FBT002 - nflows' form
    ) -> tuple[Tensor, Tensor]:
        parameters = autoregressive_params.unflatten(1, (inputs.shape[1], -1))
        outputs, log_slope = self._splines(inputs, parameters, inverse=inverse)
        return outputs, log_slope.flatten(1).sum(1)

    def _solve(self, output: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self._splines(output, parameters, inverse=True)

    def _splines(self, inputs: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        return spline_of(inputs, parameters, Spline.of(self, self.num_bins, self.autoregressive_net), inverse=inverse)
