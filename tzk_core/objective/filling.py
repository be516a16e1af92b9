"""Single missing values of T, filled in from the model.

They are filled in from what was seen of T and of knowledge.

A variable that is filled in from q contributes log M - log q. Here q is the model's own conditional of what is missing,
by sampling-importance-resampling. Of k proposals one is chosen by its weight w = p_enc(T, K) / proposal, and log q =
log p_enc(T, K) - log (1/k) Σ w. Without knowledge log p(T) - log q is the importance-weighted bound of log p(T_seen).
The gradient at the chosen T is in the mean over choices that of the bound (Fisher's identity).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Generator, Tensor

from tzk_core.knowledge import Knowledge, discriminate
from tzk_core.knowledge.stacking import evaluate_all
from tzk_core.model import TzK
from tzk_core.model.marginal import Proposal
from tzk_core.modes import evaluating
from tzk_core.observations import Observations
from tzk_core.recipes.entrance import entrance_of

ROUNDS = 5
"""How often the reference's own gaps are filled in from a proposal, which then is made anew."""

REFERENCE = 512
"""How many samples a proposal is made of."""


def hot_deck(T: Tensor, generator: Generator) -> Tensor:
    """T with missing values replaced by seen ones of other rows, at random.

    That is done for every dimension.

    Rows of which nothing was seen are left out. A dimension that was never seen becomes 0.

    Args:
        T: (n, *shape), nan where missing.
    """
    flat = T.flatten(1)
    flat = flat[~flat.isnan().all(1)].clone()
    for dim in flat.isnan().any(0).nonzero().squeeze(1).tolist():
        column = flat[:, dim]
        gaps, seen = column.isnan(), column[~column.isnan()]
        choice = torch.randint(max(len(seen), 1), (int(gaps.sum()),), generator=generator)
        flat[gaps, dim] = seen[choice] if len(seen) else 0.0
    return flat.view(-1, *T.shape[1:])


class Filling:
    """The filling in of missing values of batches, by proposals from a reference.

    The reference is such as training samples.

    Args:
        T: the reference, (n, *shape), which may have gaps itself.
        samples: how many proposals one is chosen from.
    """

    @torch.no_grad()
    def __init__(self, model: TzK, T: Tensor, generator: Generator, *, samples: int = 32) -> None:
        self.model, self.samples = model, samples
        T = T[:REFERENCE].to(model.like)
        gapped = T[~T.flatten(1).isnan().all(1)]
        complete, entrance = hot_deck(T.cpu(), generator).to(T), entrance_of(model.flow.transform)
        self.proposal = Proposal(complete, entrance)
        for _ in range(ROUNDS if gapped.isnan().any() else 0):
            self.proposal = Proposal(self.proposal.fill(gapped, 1, generator).T.squeeze(1), entrance)

    @torch.no_grad()
    def complete(self, observations: Observations, generator: Generator) -> Observations:
        """The same observations with every partly missing T whole.

        They have log q of what was filled in.
        """
        partly = observations.partly_missing()
        if partly is None:
            return observations
        rows = torch.nonzero(partly).squeeze(1)
        filled = self.proposal.fill(observations.T[rows], self.samples, generator)
        with evaluating(self.model):
            log_joint = self._log_joint(filled.T.flatten(0, 1), observations.take(rows.repeat_interleave(self.samples)))
        log_joint = log_joint.view(len(rows), self.samples)
        log_weights = (log_joint - filled.log_q).nan_to_num(nan=-math.inf, posinf=-math.inf)
        possible = log_weights.isfinite().any(1, keepdim=True)
        log_weights = torch.where(possible, log_weights, 0.0)
        shares = log_weights.softmax(1)
        choice = shares.cpu().multinomial(1, generator=generator).squeeze(1).to(rows.device)
        every = torch.arange(len(rows), device=rows.device)
        log_q = log_joint[every, choice] - (log_weights.logsumexp(1) - math.log(self.samples))
        T = observations.T.index_copy(0, rows, filled.T[every, choice])
        zeros = T.new_zeros(len(T))
        return replace(observations, T=T, log_q=zeros.index_copy(0, rows, log_q.to(T)))

    def _log_joint(self, T: Tensor, seen: Observations) -> Tensor:
        """log p_enc(T, K) of observed presence and C, (n,)."""
        flow = self.model.flow
        z, logabsdet = flow.encode(T)
        total = flow.base.log_prob(z) + logabsdet
        members: dict[str, Knowledge] = {name: self.model.find(name) for name in seen.knowledge}
        presence: Mapping[str, tuple[Tensor, ...]] = evaluate_all(
            members, discriminate, z, not_vmappable=self.model.not_vmappable
        )
        for name, (absent, present) in presence.items():
            rows = seen.present(name)
            total = total.index_add(0, rows, present[rows])
            rows_absent = seen.absent(name)
            total = total.index_add(0, rows_absent, absent[rows_absent])
            C = seen.characteristics.get(name)
            if C is not None and len(rows := rows[~C[rows].isnan().any(1)]):
                total = total.index_add(0, rows, members[name].log_prob_characteristics_given(C[rows].to(z), z[rows]))
        return total
