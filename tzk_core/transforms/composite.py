"""Several transforms, one after the other, as a pure function, and their start from data."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor

from tzk_core.inputs import check_domain


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


@torch.no_grad()
def initialise(transform: Transform, inputs: Tensor) -> Tensor:
    """Starts every layer that starts from data, in order, from what reaches it; returns the outputs.

    A layer that holds others calls this for them in an `initialise` of its own. Raises `TzkError` if the inputs,
    (batch, *shape), are outside the domain of a layer, before anything behind it is set from them.
    """
    if isinstance(transform, CompositeTransform):
        for part in transform._transforms:
            inputs = initialise(part, inputs)
        return inputs
    if hasattr(transform, "initialise"):
        transform.initialise(inputs)
    outputs, logabsdet = transform(inputs)
    check_domain(logabsdet)
    return outputs
