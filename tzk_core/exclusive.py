"""Knowledge types of which every sample has exactly one, where nobody said which: a sum over the one it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Candidate:
    """What one knowledge type says of the samples of which it may be the one; (n,) each.

    log_odds: log p(κ=1 given z) - log p(κ=0 given z), at a z that takes no gradient. log_prior: log p(κ=1).
    decoder: log p_dec(T, K) - log p(T) with κ = 1, less log q of a C that was filled in. multiplier: its λ.
    """

    log_odds: Tensor
    log_prior: Tensor
    decoder: Tensor
    multiplier: float


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
        self._said: dict[str, Candidate] = {}

    def candidate(self, name: str) -> Tensor:
        """Where a member may be the one, (batch,)."""
        return self._candidates[self.members.index(name)]

    def add(self, name: str, said: Candidate) -> None:
        """`said`: of the samples of which the member is a candidate, in their order."""
        self._said[name] = said

    def summed(self) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's side, the penalty of Eq. 5, and how much weight of log p(T) the paper's wording takes; (n,)
        each, for the n samples that are undecided. The encoder's side is 0."""
        log_odds, log_prior, decoder = (
            torch.stack([self._whole(name, getattr(self._said[name], key)) for name in self._said])
            for key in ("log_odds", "log_prior", "decoder")
        )
        multipliers = decoder.new_tensor([said.multiplier for said in self._said.values()])[:, None]
        decoder = decoder - log_prior.logsumexp(0)
        shares = decoder.softmax(0).detach()
        # where a member is no candidate both sides are -inf, and so they are equal
        gaps = torch.where(decoder == -torch.inf, 0.0, decoder - functional.log_softmax(log_odds, 0))
        penalty = (shares * multipliers * gaps.abs()).sum(0)
        lost = (shares * (0.5 - multipliers * gaps.detach().sign())).sum(0)
        return decoder.logsumexp(0), penalty, lost

    def _whole(self, name: str, values: Tensor) -> Tensor:
        """Values for all that is undecided, -inf where the member is no candidate."""
        rows = torch.nonzero(self.candidate(name)[self.rows]).squeeze(1)
        return values.new_full((int(self.rows.sum()),), -torch.inf).index_copy(0, rows, values)
