"""Absent knowledge: which log p(κ=0 given z) of a batch are evaluated, all of them or a few that stand for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.stacking import Rectangle, padded

Absences = Callable[[Tensor], Tensor]
"""From presence, (knowledge, batch) in {0, 1, nan}, the weight of every log p(κ=0 given z), of the same shape: 0 is not
evaluated. It is 0 wherever κ is not known to be 0, and on average 1 wherever it is."""


def every_absence(presence: Tensor) -> Tensor:
    """All of them: 1 where the knowledge is known to be absent."""
    return (presence == 0).to(presence)


def sampled_absences(presence: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """All of them for up to `most` knowledge types; of more a random choice whose weighted sum is unbiased.

    Both sides of an absent κ are log p(κ=0 given z) (`objective`), so this is all that absence adds to Eq. 3, and
    nothing to the constraint of Eq. 5. A knowledge type that some sample has, or may have, is told from `most` of the
    samples that are known not to have it, each with equal chances; of the types that no sample has, `most` are drawn
    and told from every sample. Each weighs as much as those it stands for (Horvitz and Thompson 1952): the weights of a
    type that is told from samples sum to their number, so that what is alike in all samples adds no noise.
    """
    absent = presence == 0
    if len(presence) <= most:
        return absent.to(presence)
    weights = torch.zeros_like(presence)
    whole = absent.all(1)
    some, none = torch.nonzero(~whole).squeeze(1), torch.nonzero(whole).squeeze(1)
    if len(none):
        drawn = torch.randperm(len(none), generator=generator)[:most].to(none.device)
        weights[none[drawn]] = len(none) / len(drawn)
    if len(some) and presence.shape[1]:
        keys = torch.rand(len(some), presence.shape[1], generator=generator).to(presence)
        keys = keys.masked_fill(~absent[some], torch.inf)
        rank = keys.argsort(1).argsort(1)
        counts = absent[some].sum(1, keepdim=True)
        chosen = (rank < most) & absent[some]
        weights[some] = chosen * counts / counts.clamp(1, most)
    return weights


@dataclass(frozen=True)
class Asked:
    """The samples at which the discriminators of a rectangle are evaluated: its own, and those it is told from.

    at: (k, r), positions in the batch; None is the whole batch, in order, for each. weights: (k, r), of log p(κ=0 given
    z). own: (k, m), where among the r those of the rectangle are.
    """

    at: Tensor | None
    weights: Tensor
    own: Tensor

    def take(self, values: Tensor) -> Tensor:
        """Values, (batch, ...), where it is asked: (k, r, ...), or as they are for the whole batch."""
        return values if self.at is None else values[self.at]

    def total(self, values: Tensor, size: int) -> Tensor:
        """The weighted sum of values, (k, r), for each sample of the batch, (size,)."""
        weighted = self.weights * values
        if self.at is None:
            return weighted.sum(0)
        return weighted.new_zeros(size).index_add(0, self.at.flatten(), weighted.flatten())


def asked(rectangle: Rectangle, weights: Tensor) -> Asked:
    """`weights`, (k, batch), are those of the absences of the rectangle's knowledge types.

    Where half of the batch or more is needed, it is the whole of it: that takes no copies of z.
    """
    told = weights != 0
    size, m = weights.shape[1], rectangle.rows.shape[1]
    if 2 * (m + int(told.sum(1).max())) >= size:
        return Asked(None, weights, rectangle.rows)
    others, real = padded([torch.nonzero(each).squeeze(1) for each in told])
    at = torch.cat([rectangle.rows, others], 1)
    at_weights = torch.cat([weights.new_zeros(rectangle.rows.shape), weights.gather(1, others) * real], 1)
    return Asked(at, at_weights, torch.arange(m, device=at.device).expand_as(rectangle.rows))
