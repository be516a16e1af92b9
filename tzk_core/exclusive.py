"""Knowledge types of which every sample has exactly one, where nobody said which: a sum over the one it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Candidate:
    """What one knowledge type says of a batch, where it may be the one; (batch,) each, of no meaning elsewhere.

    log_odds: log p(κ=1 given z) - log p(κ=0 given z), at a z that takes no gradient. log_prior: log p(κ=1), a scalar.
    decoder: log p_dec(T, K) - log p(T) with κ = 1, less log q of a C that was filled in. multiplier: its λ, a scalar.
    """

    log_odds: Tensor
    log_prior: Tensor
    decoder: Tensor
    multiplier: Tensor


class Undecided:
    """The samples of a batch of which one of a group of knowledge types is present, and none is known to be.

    Independent knowledge types would each sum over their own κ, so that a sample without a label might be all of them
    at once, and every conditional that beats a weak prior would be taught every sample. That exactly one is present is
    known here, so both sides are summed over which one it is: the encoder's Σ_i p(i given z) = 1, p(i given z) ∝
    p(κ^i=1 given z) / p(κ^i=0 given z), and the decoder's mixture Σ_i w_i p(T given K^i), w_i ∝ p(κ^i=1). The
    constraint of Eq. 5 holds for each of them, as often as the mixture takes the sample to be it; that is what teaches
    the discriminators without labels. Members that are known to be absent are no candidates.

    rows: (batch,), where a sample is undecided.
    """

    def __init__(self, members: Sequence[str], presence: Mapping[str, Tensor]) -> None:
        self.members = tuple(members)
        columns = torch.stack([presence[name] for name in members])
        self._candidates = columns.isnan() & ~(columns == 1).any(0)
        self.rows = self._candidates.any(0)

    def candidate(self, name: str) -> Tensor:
        """Where a member may be the one, (batch,)."""
        return self._candidates[self.members.index(name)]

    def summed(self, said: Mapping[str, Candidate]) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's side, the penalty of Eq. 5, and how much weight of log p(T) the paper's wording takes; (batch,)
        each, 0 for samples that are decided. The encoder's side is 0.

        said: what every member says.
        """
        candidates = torch.stack([self.candidate(name) for name in said])
        others = torch.where(self.rows, -torch.inf, 0.0)  # a sum over nothing would have no gradient
        log_odds, log_prior, decoder, multipliers = (
            torch.stack([getattr(each, key) for each in said.values()]).view(len(said), -1)
            for key in ("log_odds", "log_prior", "decoder", "multiplier")
        )
        log_odds, log_prior, decoder = (
            torch.where(candidates, each, others) for each in (log_odds, log_prior, decoder)
        )
        decoder = decoder - log_prior.logsumexp(0)
        shares = decoder.softmax(0).detach()
        # where a member is no candidate both sides are -inf, and so they are equal
        gaps = torch.where(candidates, decoder - functional.log_softmax(log_odds, 0), 0.0)
        penalty = (shares * multipliers * gaps.abs()).sum(0)
        lost = (shares * (0.5 - multipliers * gaps.detach().sign())).sum(0)
        summed, owed, taken = (torch.where(self.rows, each, 0.0) for each in (decoder.logsumexp(0), penalty, lost))
        return summed, owed, taken
