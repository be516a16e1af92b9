"""The tensors of a model, before and after."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers by name, which training does not move."""
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether both have the same names in the same order, and equal values bit for bit."""
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)
