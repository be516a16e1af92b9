"""nflows' couplings with slices in the place of lists of features."""

from __future__ import annotations

import torch
from nflows.transforms.coupling import (
    AdditiveCouplingTransform,
    AffineCouplingTransform,
    CouplingTransform,
    PiecewiseRationalQuadraticCouplingTransform,
)
from torch import Tensor

from tzk_plugin_fast_nflows.adopted import Adopted
from tzk_plugin_fast_nflows.network import regressed
from tzk_plugin_fast_nflows.spline import Spline
from tzk_plugin_fast_nflows.spline_gradient import spline_of


class _Coupling(Adopted, CouplingTransform):
    """A coupling that reads its two groups of features by slices.

    It does so where each is an arithmetic progression.
    """

    _slices: tuple[slice, slice] | None

    def _prepare(self) -> None:
        unchanged, changed = (_progression(group) for group in (self.identity_features, self.transform_features))
        self._slices = (unchanged, changed) if unchanged and changed else None

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        unchanged, changed = self._split(inputs)
        parameters = regressed(self.transform_net, unchanged, context)
        changed, logabsdet = self._coupling_transform_forward(changed, parameters)
        if self.unconditional_transform is not None:
            unchanged, more = self.unconditional_transform(unchanged, context)
            logabsdet = logabsdet + more
        return self._join(unchanged, changed), logabsdet

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        unchanged, changed = self._split(inputs)
        more = None
        if self.unconditional_transform is not None:
            unchanged, more = self.unconditional_transform.inverse(unchanged, context)
        parameters = regressed(self.transform_net, unchanged, context)
        changed, logabsdet = self._coupling_transform_inverse(changed, parameters)
        return self._join(unchanged, changed), logabsdet if more is None else logabsdet + more

    def _split(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The features that stay and those that change, views where they are slices."""
        if inputs.dim() not in (2, 4):
            raise ValueError("Inputs must be a 2D or a 4D tensor.")
        if inputs.shape[1] != self.features:
            raise ValueError(f"Expected features = {self.features}, got {inputs.shape[1]}.")
        if self._slices is None:
            return inputs.index_select(1, self.identity_features), inputs.index_select(1, self.transform_features)
        kept, changed = self._slices
        if kept.step == changed.step == 1:  # backward of a split makes one table, that of two slices three
            if kept.start == 0:
                return inputs.split((kept.stop, self.features - kept.stop), 1)
            return inputs.split((changed.stop, self.features - changed.stop), 1)[::-1]
        return inputs[:, kept], inputs[:, changed]

    def _join(self, unchanged: Tensor, changed: Tensor) -> Tensor:
        """All features in their order."""
        if self._slices is not None and self._slices[0].step == self._slices[1].step == 1:
            ordered = (unchanged, changed) if self._slices[0].start == 0 else (changed, unchanged)
            return torch.cat(ordered, 1)
        order = torch.cat([self.identity_features, self.transform_features]).argsort()
        return torch.cat([unchanged, changed], 1).index_select(1, order)


class AffineCoupling(_Coupling, AffineCouplingTransform):
    """y = x s(other features) + t(other features), s between 0.001 and 1.001."""

    def _coupling_transform_forward(self, inputs: Tensor, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale_and_shift(transform_params)
        return torch.addcmul(shift, inputs, scale), scale.log().flatten(1).sum(1)

    def _coupling_transform_inverse(self, inputs: Tensor, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale_and_shift(transform_params)
        return (inputs - shift).div_(scale), -scale.log().flatten(1).sum(1)

    def _scale_and_shift(self, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = transform_params.chunk(2, 1)
        return (raw + 2).sigmoid_() + 1e-3, shift


class AdditiveCoupling(_Coupling, AdditiveCouplingTransform):
    """y = x + t(other features)."""

    def _coupling_transform_forward(self, inputs: Tensor, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        return inputs + transform_params, inputs.new_zeros(inputs.shape[0])

    def _coupling_transform_inverse(self, inputs: Tensor, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        return inputs - transform_params, inputs.new_zeros(inputs.shape[0])


class SplineCoupling(_Coupling, PiecewiseRationalQuadraticCouplingTransform):
    """Rational-quadratic splines of features whose parameters follow from the others."""

    def _piecewise_cdf(
        self,
        inputs: Tensor,
        transform_params: Tensor,
        inverse: bool = False,  # noqa: FBT001, FBT002 - nflows' form
    ) -> tuple[Tensor, Tensor]:
        return spline_of(inputs, transform_params, Spline.of(self, self.num_bins, self.transform_net), inverse=inverse)


def _progression(features: Tensor) -> slice | None:
    """The slice of ascending features that are equally far apart; None where they are not."""
    values = features.tolist()
    if not values:
        return None
    step = values[1] - values[0] if len(values) > 1 else 1
    return slice(values[0], values[-1] + 1, step) if values == list(range(values[0], values[-1] + 1, step)) else None
