"""Exclusive knowledge types: a sum over which one of them a sample has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Candidate(NamedTuple):
    """The terms of one knowledge type that samples may have.

    log_odds: (batch,), log p(κ=1 given z) - log p(κ=0 given z), at a z that takes no gradient.
    log_prior: log p(κ=1), a scalar.
    decoder: (batch,), log p_dec(T, K) - log p(T) with κ = 1, less log q of a C that was filled in.
    multiplier: λ of the knowledge type, a scalar.

    Values have no meaning at samples for which the knowledge type is no candidate.
    """

    log_odds: Tensor
    log_prior: Tensor
    decoder: Tensor
    multiplier: Tensor


class ExclusiveSum(NamedTuple):
    """The terms of a group, summed over its candidates; (batch,) each, 0 for decided samples.

    The encoder's side is 0, its probabilities adding up to 1.

    decoder: log Σ_i w_i p(T given K^i) / p(T). penalty: of Eq. 5. lost_weight: the weight of log p(T) that the
    decoder's division by it takes.
    """

    decoder: Tensor
    penalty: Tensor
    lost_weight: Tensor


class ExclusiveGroup:
    """Knowledge types of which every sample has exactly one, and the undecided samples.

    Independent knowledge types would each sum over their own κ. A sample without a label might then be all of them at
    once, and every conditional that beats a weak prior would learn from every sample. That exactly one is present is
    known here, so both sides are summed over which one it is:

    encoder: Σ_i p(i given z) = 1, with p(i given z) ∝ p(κ^i=1 given z) / p(κ^i=0 given z)
    decoder: the mixture Σ_i w_i p(T given K^i), with w_i ∝ p(κ^i=1)

    The constraint of Eq. 5 holds for each of them, weighted by its share of the mixture. That is what teaches the
    discriminators without labels. Members that are known to be absent are no candidates.

    members: the names of the knowledge types.
    candidates: (members, batch), where a member may be the one that is present.
    undecided: (batch,), where there is any candidate.
    """

    def __init__(self, members: Sequence[str], presence: Mapping[str, Tensor]) -> None:
        self.members = tuple(members)
        columns = torch.stack([presence[name] for name in members])
        self.candidates = columns.isnan() & ~(columns == 1).any(0)
        self.undecided = self.candidates.any(0)

    def is_candidate(self, name: str) -> Tensor:
        """Where the named member may be the one that is present, (batch,)."""
        return self.candidates[self.members.index(name)]

    def summed(self, terms: Mapping[str, Candidate]) -> ExclusiveSum:
        """Sum both sides over the candidates.

        Args:
            terms: those of every member, by name.
        """
        candidates = torch.stack([self.is_candidate(name) for name in terms])
        elsewhere = torch.where(self.undecided, -torch.inf, 0.0)  # a sum over nothing would have no gradient
        log_odds, log_prior, decoder, multipliers = (
            torch.stack(values).view(len(terms), -1) for values in zip(*terms.values(), strict=True)
        )
        log_odds, log_prior, decoder = (
            torch.where(candidates, values, elsewhere) for values in (log_odds, log_prior, decoder)
        )
        decoder = decoder - log_prior.logsumexp(0)
        shares = decoder.softmax(0).detach()
        # where a member is no candidate both sides are -inf, and so they are equal
        gaps = torch.where(candidates, decoder - functional.log_softmax(log_odds, 0), 0.0)
        penalty = (shares * multipliers * gaps.abs()).sum(0)
        lost = (shares * (0.5 - multipliers * gaps.detach().sign())).sum(0)
        return ExclusiveSum(
            *(torch.where(self.undecided, values, 0.0) for values in (decoder.logsumexp(0), penalty, lost))
        )
