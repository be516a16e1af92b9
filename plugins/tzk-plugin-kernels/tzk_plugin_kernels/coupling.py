"""Image couplings whose mixtures of logistics are computed by the operators."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from tzk_plugin_glow.coupling import Coupling
from tzk_plugin_glow.elementwise import ElementMap
from tzk_plugin_glow.mixture import MixtureMap

from tzk_plugin_kernels.choice import unusable
from tzk_plugin_kernels.mixture import mixture, mixture_inverse


class FusedCoupling(Coupling):
    """An image coupling with a fused mixture of logistics; other maps are unchanged."""

    unusable = staticmethod(unusable)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._couple(inputs, context, _fused(self.map, mixture) or self.map.forward)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._couple(inputs, context, _fused(self.map, mixture_inverse) or self.map.inverse)


def _fused(
    map: ElementMap, operator: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """The operator as an `ElementMap` function; None if it is not of this map."""
    if not isinstance(map, MixtureMap):
        return None

    def function(values: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mapped, log_slope = operator(values.flatten(1).to(parameters.dtype), parameters.flatten(2), map.bound)
        return mapped.view(values.shape), log_slope.view(values.shape)

    return function
