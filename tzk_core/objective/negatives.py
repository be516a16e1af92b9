"""Absent knowledge: all log p(κ=0 given z) of a batch, or an unbiased sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Absences = Callable[[Tensor], Tensor]
"""From presence, (knowledge, batch) in {0, 1, nan}, the weight of every log p(κ=0 given z), of the same shape.

A weight of 0 is not evaluated. It is 0 wherever κ is not known to be 0, and 1 in expectation wherever it is."""


def every_absence(presence: Tensor) -> Tensor:
    """Weights of 1 wherever the knowledge is known to be absent."""
    return (presence == 0).to(presence)


def sampled_absences(presence: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """All absences of up to `most` knowledge types; of more an unbiased sample.

    Both sides of an absent κ are log p(κ=0 given z), see `terms.absent_terms`. So this is all that absence adds to
    Eq. 3, and it adds nothing to the constraint of Eq. 5. Knowledge types that some sample has, or may have, are
    evaluated at `most` samples, the same for all of them. Of the types that no sample has, `most` are sampled and
    evaluated at every sample. Each term weighs as much as those that it stands for (Horvitz and Thompson 1952).

    Args:
        presence: (knowledge, batch) in {0, 1, nan}.
        most: how many samples, and how many absent types, are evaluated.
        generator: the source of the random choice.

    Returns:
        The weights, (knowledge, batch), as of `Absences`.
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
