"""A transform computed in float64, whatever the type of its parameters."""

from __future__ import annotations

import itertools

import torch
from nflows.transforms.base import Transform
from torch import Tensor

from tzk_core.inputs import check_domain


def in_double(transform: Transform, inputs: Tensor, what: str = "T") -> Tensor:
    """The outputs of a transform in the type of `inputs`, computed in float64.

    Args:
        what: the name of `inputs` in errors.
    """
    if inputs.device.type == "mps":  # which has no float64
        return transform(inputs)[0]
    state = itertools.chain(transform.named_parameters(), transform.named_buffers())
    double = {name: value.double() if value.is_floating_point() else value for name, value in state}
    outputs, logabsdet = torch.func.functional_call(transform, double, (inputs.double(),))
    check_domain(logabsdet, what)
    return outputs.to(inputs.dtype)
