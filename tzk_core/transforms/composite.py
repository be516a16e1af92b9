"""Several transforms, one after the other, as a pure function."""

from __future__ import annotations

from collections.abc import Iterable

from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor


class Composite(CompositeTransform):
    """nflows' composite without its addition in place, which `torch.func` refuses when only parameters are stacked."""

    @staticmethod
    def _cascade(
        inputs: Tensor, funcs: Iterable[Transform], context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        outputs, total = inputs, inputs.new_zeros(inputs.shape[0])
        for func in funcs:
            outputs, logabsdet = func(outputs, context)
            total = total + logabsdet
        return outputs, total
