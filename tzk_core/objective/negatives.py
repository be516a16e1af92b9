"""Absent knowledge: all log p(κ=0 given z) of a batch, or an unbiased sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class AbsenceWeights(NamedTuple):
    """The weight of every log p(κ=0 given z) of a batch, 1 in expectation.

    shown: (knowledge, batch), of the types that some sample has or may have; 0 wherever κ is not known to be 0.
    others: (n,) int64, which of the types that no sample has or may have are evaluated, by their number among these.
    weight: of each of the `others` at every sample; all further types have none.
    """

    shown: Tensor
    others: Tensor
    weight: float


Absences = Callable[[Tensor, int], AbsenceWeights]
"""From presence, (knowledge, batch) in {0, 1, nan}, and the number of all types that no sample has or may have.

Rows are of the types that some sample has or may have. A weight of 0 is not evaluated."""


def every_absence(presence: Tensor, others: int) -> AbsenceWeights:
    """Weights of 1 wherever the knowledge is known to be absent."""
    return AbsenceWeights((presence == 0).to(presence), torch.arange(others), 1.0)


def sampled_absences(presence: Tensor, others: int, *, most: int, generator: torch.Generator) -> AbsenceWeights:
    """All absences of up to `most` knowledge types; of more an unbiased sample.

    Both sides of an absent κ are log p(κ=0 given z), see `terms.absent_terms`. So this is all that absence adds to
    Eq. 3, and it adds nothing to the constraint of Eq. 5. Knowledge types that some sample has, or may have, are
    evaluated at `most` samples, the same for all of them. Of the types that no sample has, `most` are sampled and
    evaluated at every sample. Each term weighs as much as those that it stands for (Horvitz and Thompson 1952).

    Args:
        presence, others: as of `Absences`.
        most: how many samples, and how many absent types, are evaluated.
        generator: the source of the random choice.
    """
    if len(presence) + others <= most:
        return every_absence(presence, others)
    size = presence.shape[1]
    samples = torch.randperm(size, generator=generator)[:most].to(presence.device)
    types = torch.randperm(others, generator=generator)[:most]
    weights = torch.zeros_like(presence)
    weights[:, samples] = size / max(1, len(samples))
    return AbsenceWeights(weights * (presence == 0), types, others / max(1, len(types)))
