"""The weights of absences as one table of all knowledge types."""

from __future__ import annotations

import torch
from torch import Tensor

from tzk_core.objective import sampled_absences


def absence_weights(presence: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """The weight of every log p(κ=0 given z), (knowledge, batch), as presence, in {0, 1, nan}."""
    anywhere = (presence != 0).any(1)
    nowhere = torch.nonzero(~anywhere).squeeze(1)
    drawn = sampled_absences(presence[anywhere], len(nowhere), most=most, generator=generator)
    weights = torch.zeros_like(presence)
    weights[anywhere] = drawn.shown
    weights[nowhere[drawn.others]] = drawn.weight
    return weights
