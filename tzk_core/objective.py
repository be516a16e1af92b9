"""The objective: mental capacity under a consistency constraint, any part of the observation missing (paper, Eq. 3 to 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.model import TzK
from tzk_core.observations import Observations

Noise = Callable[[str, int], Tensor]
"""Standard Gaussian noise, (n, c), for the characteristics of the named knowledge type."""


@dataclass(frozen=True)
class Wording:
    """Which of two wordings the objective takes, for each place where the paper's own is unsound.

    fill_in: "bound": a variable filled in from q contributes log M - log q, which is bounded; "literal": log M, as
        the paper words it, which grows without limit as the encoder narrows.
    prior: "paper": the decoder divides by p(T) of present knowledge, so that every knowledge present takes away
        from the weight of log p(T), (½ - λ s) each; "full": the same value, but no gradient through that division,
        Jacobian included, so that the weight of log p(T) stays 1 whatever is present.
    """

    fill_in: str = "bound"
    prior: str = "full"

    def __post_init__(self) -> None:
        for key, known in (("fill_in", ("bound", "literal")), ("prior", ("full", "paper"))):
            if getattr(self, key) not in known:
                raise TzkError(f"objective.{key} is one of {', '.join(known)}; got {getattr(self, key)!r}")


@dataclass(frozen=True)
class Evidence:
    """What one knowledge type adds to the objective in the samples in which it is present or unobserved.

    encoder: (n,), its log p_enc(K given T), decoder: (n,), its log p_dec(T, K) - log p(T), both less log q of what
    was filled in; conditional: (n,), log p(z given C) - log p(z), how much better than the prior it tells T;
    rows: (n,), which samples these are.
    """

    rows: Tensor
    encoder: Tensor
    decoder: Tensor
    conditional: Tensor


@dataclass(frozen=True)
class Capacity:
    """The objective on one batch, in nats.

    value: scalar, the mean of log M - Σ λ_i |log p_enc - log p_dec|, to be maximised (Eq. 5).
    log_prob_T: (batch,), log p(T). log_capacity: (batch,), log M (Eq. 3).
    inconsistency: by knowledge, g_i over the samples in which i is not known to be absent (elsewhere it is 0).
    conditional: by knowledge, the mean log p(z given C) - log p(z) of the samples in which it is present, C from its
        encoder where it was not observed.
    prior_weight: the mean weight of log p(T) in the gradient, 1 - Σ_present (½ - λ_i s_i) in the paper's wording.
    """

    value: Tensor
    log_prob_T: Tensor
    log_capacity: Tensor
    inconsistency: dict[str, Tensor]
    conditional: dict[str, Tensor]
    prior_weight: Tensor


def mental_capacity(
    model: TzK,
    observations: Observations,
    noise: Noise,
    multipliers: Mapping[str, float] | None = None,
    wording: Wording = Wording(),
) -> Capacity:
    """Evaluates Eq. 5 on one batch after encoding it once.

    `noise` gives the one reparametrised sample of every C that was not observed. A knowledge type that the
    observations do not mention takes no part. Multipliers default to 0.
    """
    z, logabsdet = model.flow.encode(observations.T)
    log_prob_z = model.flow.base.log_prob(z)
    log_prob_T = log_prob_z + logabsdet
    # log p(z) as the decoder divides by it. "full" takes the gradient of log p(T) out and leaves that of the
    # Jacobian in, which then balances log p(z given C): detaching log p(z) alone would let f_T shrink z without cost.
    divisor = log_prob_z if wording.prior == "paper" else log_prob_T.detach() - logabsdet

    log_capacity = log_prob_T
    penalty = torch.zeros_like(log_prob_T)
    weight = torch.ones_like(log_prob_T)
    inconsistency, conditional = {}, {}
    for name in observations.knowledge:
        kind = model.find(name)
        presence = kind.log_prob_presence_given(z)
        # both sides of an absent κ are log p(κ=0 given z): it is the Bayes complement, consistent by construction
        absent = observations.absent(name)
        log_capacity = log_capacity.index_add(0, absent, presence[0].index_select(0, absent))
        evidence = [
            gather(kind, name, z, divisor, presence, rows, observations, noise, wording)
            for rows, gather in ((observations.present(name), _present), (observations.unobserved(name), _unobserved))
            if len(rows)
        ]
        gaps = []
        multiplier = (multipliers or {}).get(name, 0.0)
        for each in evidence:
            gap = each.decoder - each.encoder
            log_capacity = log_capacity.index_add(0, each.rows, 0.5 * (each.encoder + each.decoder))
            penalty = penalty.index_add(0, each.rows, multiplier * gap.abs())
            gaps.append(gap.detach())
            if wording.prior == "paper":
                weight = weight.index_add(0, each.rows, multiplier * gap.detach().sign() - 0.5)
        if gaps:
            inconsistency[name] = torch.cat(gaps).abs().mean()
            conditional[name] = evidence[0].conditional.detach().mean()
    return Capacity(
        (log_capacity - penalty).mean(),
        log_prob_T,
        log_capacity,
        inconsistency,
        conditional,
        weight.mean(),
    )


def _present(
    kind: Knowledge,
    name: str,
    z: Tensor,
    divisor: Tensor,
    presence: tuple[Tensor, Tensor],
    rows: Tensor,
    observations: Observations,
    noise: Noise,
    wording: Wording,
) -> Evidence:
    """κ = 1, with C as observed or as its encoder fills it in."""
    z, divisor = z.index_select(0, rows), divisor.index_select(0, rows)
    given = noise(name, len(rows)).to(z)
    C = kind.encode(z, given)
    observed = observations.characteristics.get(name)
    if observed is None:
        filled_in = torch.ones(len(rows), dtype=torch.bool, device=z.device)
    else:
        filled_in = observed[rows].isnan().any(1)
        C = torch.where(filled_in[:, None], C, observed[rows])
    encoded = kind.log_prob_characteristics_given(C, z)
    # log q of a filled-in C; the encoder's own log p(C given z) cancels against it in the bound
    log_q = torch.where(filled_in, encoded, 0.0) if wording.fill_in == "bound" else torch.zeros_like(encoded)
    ratio = kind.log_prob_latent(z, C) - divisor
    encoder = presence[1].index_select(0, rows) + encoded - log_q
    decoder = kind.log_prob_presence()[1] + kind.log_prob_characteristics(C) + ratio - log_q
    return Evidence(rows, encoder, decoder, ratio)


def _unobserved(
    kind: Knowledge,
    name: str,
    z: Tensor,
    divisor: Tensor,
    presence: tuple[Tensor, Tensor],
    rows: Tensor,
    observations: Observations,
    noise: Noise,
    wording: Wording,
) -> Evidence:
    """κ missing: both branches summed exactly. The encoder's sum to 1; the decoder's are log-sum-exp'd in the bound.

    The paper's wording takes the expectation under p(κ given z) instead.
    """
    present = _present(kind, name, z, divisor, presence, rows, observations, noise, wording)
    log_absent, log_present = (each.index_select(0, rows) for each in presence)
    if wording.fill_in == "bound":
        decoder = torch.logaddexp(present.decoder, log_absent)
        return Evidence(rows, torch.zeros_like(decoder), decoder, present.conditional)
    encoder = log_present.exp() * present.encoder + log_absent.exp() * log_absent
    decoder = log_present.exp() * present.decoder + log_absent.exp() * log_absent
    return Evidence(rows, encoder, decoder, present.conditional)


@dataclass
class Multipliers:
    """The Lagrange multipliers λ_i of Eq. 5, one a knowledge type, by dual ascent towards a tolerance.

    λ stays below ½: above it the objective pushes the better of encoder and decoder down instead of the worse one up.
    tolerance: nats of inconsistency, per sample in which the knowledge is present, that are let be.
    rate: how far λ moves in a step at most; the step is proportional to the inconsistency over the tolerance, less 1.
    """

    values: dict[str, float]
    tolerance: float = 10.0
    rate: float = 1e-3
    maximum: float = 0.45

    def __post_init__(self) -> None:
        if not 0 <= self.maximum < 0.5:
            raise TzkError(f"multipliers are expected in [0, 0.5); got a maximum of {self.maximum}")
        if not self.tolerance > 0:
            raise TzkError(f"the tolerance of inconsistency is expected above 0 nats; got {self.tolerance}")

    def ascend(self, inconsistency: Mapping[str, Tensor | float]) -> None:
        """One step of dual ascent on the inconsistencies, in nats, of one batch."""
        for name, nats in inconsistency.items():
            excess = min(1.0, max(-1.0, float(nats) / self.tolerance - 1))
            self.values[name] = min(self.maximum, max(0.0, self.values.get(name, 0.0) + self.rate * excess))
