"""Couplings of nflows with their choice of features as plain attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nflows.transforms.coupling import (
    AdditiveCouplingTransform,
    AffineCouplingTransform,
    CouplingTransform,
    PiecewiseRationalQuadraticCouplingTransform,
)
from torch import Tensor, nn


class _Coupling(CouplingTransform):
    """nflows' coupling with its choice of features as plain attributes.

    The sizes determine the choice. As buffers, the indices would be stacked with the parameters of other knowledge
    types, which indices cannot be.
    """

    identity_features: Tensor
    transform_features: Tensor

    def __init__(self, mask: Tensor, network: Callable[[int, int], nn.Module], **more: Any) -> None:
        super().__init__(mask, network, **more)
        chosen = self.identity_features, self.transform_features
        del self.identity_features, self.transform_features
        self.identity_features, self.transform_features = chosen


class AdditiveCoupling(_Coupling, AdditiveCouplingTransform):
    """y = x + t(other features)."""


class AffineCoupling(_Coupling, AffineCouplingTransform):
    """y = x s(other features) + t(other features), s between 0.001 and 1.001."""


class SplineCoupling(_Coupling, PiecewiseRationalQuadraticCouplingTransform):
    """y is a rational-quadratic spline of x, its knots from the other features."""
