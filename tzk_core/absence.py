"""Absent knowledge: which log p(κ=0 given z) of a batch are evaluated, all of them or a few that stand for all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Absences = Callable[[Tensor], Tensor]
"""From presence, (knowledge, batch) in {0, 1, nan}, the weight of every log p(κ=0 given z), of the same shape: 0 is not
evaluated. It is 0 wherever κ is not known to be 0, and on average 1 wherever it is."""


def every_absence(presence: Tensor) -> Tensor:
    """All of them: 1 where the knowledge is known to be absent."""
    return (presence == 0).to(presence)


def sampled_absences(presence: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """All of them for up to `most` knowledge types; of more a random choice whose weighted sum is unbiased.

    Both sides of an absent κ are log p(κ=0 given z) (`objective`), so this is all that absence adds to Eq. 3, and
    nothing to the constraint of Eq. 5. The knowledge types that some sample has, or may have, are told from `most` of
    the samples, which are drawn for all of them; of the types that no sample has, `most` are drawn and told from every
    sample. Each weighs as much as those that it stands for (Horvitz and Thompson 1952).
    """
    absent = presence == 0
    if len(presence) <= most:
        return absent.to(presence)
    weights = torch.zeros_like(presence)
    none = torch.nonzero(absent.all(1)).squeeze(1)
    size = presence.shape[1]
    samples = torch.randperm(size, generator=generator)[:most].to(none.device)
    types = torch.randperm(len(none), generator=generator)[:most].to(none.device)
    weights[:, samples] = size / max(1, len(samples))
    weights[none] = 0
    weights[none[types]] = len(none) / max(1, len(types))
    return weights * absent
