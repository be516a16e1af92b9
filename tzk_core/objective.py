"""The objective: mental capacity under a consistency constraint, whatever is missing of T and K (paper, Eq. 3 to 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tzk_core.dreams import LatentNoise, Latents, encoded, latents
from tzk_core.errors import TzkError
from tzk_core.exclusive import Candidate
from tzk_core.knowledge import Knowledge
from tzk_core.model import SharedFlow, TzK
from tzk_core.observations import Observations
from tzk_core.routing import Noise, Routing, presence, route


@dataclass(frozen=True)
class Wording:
    """Which of two wordings the objective takes, for each place where the paper's own is unsound.

    fill_in: "bound": a variable filled in from q contributes log M - log q, which is bounded; "literal": log M, as
        the paper words it, which grows without limit as the encoder narrows.
    prior: "paper": the decoder divides by p(T) of present knowledge, so that every knowledge present takes away
        from the weight of log p(T), (½ - λ s) each; "full": the same value, but no gradient through that division,
        Jacobian included, so that the weight of log p(T) stays 1 whatever is present. In both the true joint is a
        stationary point.
    unlabelled: "sum": a missing κ is summed over, exactly; "skip": such a sample takes no part in the knowledge type,
        which then learns from labels alone.
    """

    fill_in: str = "bound"
    prior: str = "full"
    unlabelled: str = "sum"

    def __post_init__(self) -> None:
        choices = {"fill_in": ("bound", "literal"), "prior": ("full", "paper"), "unlabelled": ("sum", "skip")}
        for key, known in choices.items():
            if getattr(self, key) not in known:
                raise TzkError(f"objective.{key} is one of {', '.join(known)}; got {getattr(self, key)!r}")


@dataclass(frozen=True)
class Capacity:
    """The objective on one batch, in nats.

    value: scalar, the mean of log M - Σ λ_i |log p_enc - log p_dec|, to be maximised (Eq. 5).
    log_prob_T: (batch,), log p(T), nan where T is missing. log_capacity: (batch,), log M (Eq. 3) less log q of what
        was filled in.
    inconsistency: by knowledge, g_i over the samples in which i is not known to be absent (elsewhere it is 0).
    conditional: by knowledge, the mean log p(z given C) - log p(z) of the samples in which it is present, C from its
        encoder where it was not observed.
    prior_weight: the mean weight of log p(T) in the gradient, 1 - Σ_present (½ - λ_i s_i) in the paper's wording; nan
        where every T is missing.

    Samples whose T is missing count in `value` and `log_capacity` alone: the constraint is one on data.
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
    latent_noise: LatentNoise | None = None,
    fixed_flow: bool = False,
    evaluate: Callable[..., Terms] | None = None,
    sizes: dict[str, int] | None = None,
) -> Capacity:
    """Evaluates Eq. 5 on one batch after encoding it once.

    `noise` gives the one reparametrised sample of every C that was not observed, `latent_noise` that of every T. In the
    terms of a T that was drawn the discriminators are frozen: no gradient reaches their parameters, while one does
    reach the sample (paper, Training). A knowledge type that the observations do not mention takes no part. Multipliers
    default to 0. `fixed_flow` leaves the shared flow out of the gradient, for knowledge that is added to it.
    `evaluate` takes the place of `terms`, for instance compiled; `sizes` as of `rectangles`.
    """
    literal, skipped = wording.fill_in == "literal", wording.unlabelled == "skip"
    kinds = {name: model.find(name) for name in observations.knowledge}
    presence_of = presence(observations)
    batch: Latents | Observations = observations
    if observations.missing() is not None:
        batch = latents(model, observations, presence_of, latent_noise, fixed_flow, with_jacobian=literal)
    summed = not (literal or skipped)
    routing = route(
        kinds, observations, presence_of, batch.characteristics, noise, multipliers, skipped, summed, sizes
    )
    found = (evaluate or terms)(model.flow, batch, routing, wording, fixed_flow)
    means: dict[str, dict[str, Tensor]] = {"gap": {}, "ratio": {}}
    for routed, sums in zip(routing.routes, found.sums, strict=True):
        for name, (gap, gaps, ratio, ratios) in zip(routed.rectangle.names, sums.detach().cpu(), strict=True):
            if gaps:
                means["gap"][name] = gap / gaps
            if ratios:
                means["ratio"][name] = ratio / ratios
    return Capacity(
        found.value, found.log_prob_T, found.log_capacity, means["gap"], means["ratio"], found.prior_weight
    )


class Terms(NamedTuple):
    """What `mental_capacity` is made of, as `Capacity` has it, but by position: sums has for each rectangle, (k, 4),
    Σ |log p_dec - log p_enc| and over how many samples, Σ log p(z given C) - log p(z) and over how many."""

    value: Tensor
    log_prob_T: Tensor
    log_capacity: Tensor
    prior_weight: Tensor
    sums: list[Tensor]


def terms(
    flow: SharedFlow, batch: Latents | Observations, routing: Routing, wording: Wording, fixed_flow: bool
) -> Terms:
    """Eq. 5 with all that is to be decided decided: one graph, which `torch.compile` takes whole.

    batch: as observed, every T of it, or encoded and drawn already."""
    if isinstance(batch, Observations):
        batch = encoded(flow, batch, fixed_flow)
    literal = wording.fill_in == "literal"
    z, drawn = batch.z, batch.drawn
    log_prob_z = flow.base.log_prob(z)
    log_prob_T = log_prob_z + batch.logabsdet
    # log p(z) as the decoder divides by it. "full" takes the gradient of log p(T) out and leaves that of the
    # Jacobian in, which then balances log p(z given C): detaching log p(z) alone would let f_T shrink z without cost.
    # What was drawn keeps it: there log p(z) has nothing but the sample to move, and -½ KL wants its whole pull.
    divisor = log_prob_z
    if wording.prior == "full":
        divisor = _where(drawn, log_prob_z, log_prob_T.detach() - batch.logabsdet)

    log_capacity = log_prob_T if literal else log_prob_T - batch.log_q
    penalty = torch.zeros_like(log_prob_T)
    weight = torch.ones_like(log_prob_T)
    said: list[dict[str, Candidate]] = [{} for _ in routing.groups]
    sums: list[Tensor] = []
    for routed in routing.routes:
        rectangle, known_of = routed.rectangle, routed.presence
        names, stack, rows, real = rectangle.names, rectangle.stack, rectangle.rows, rectangle.real
        log_absent, log_present = stack(_presence_given, z, shared=[0])
        if drawn is not None:
            frozen_absent, frozen_present = stack.frozen()(_presence_given, z, shared=[0])
            log_absent = torch.where(drawn, frozen_absent, log_absent)
            log_present = torch.where(drawn, frozen_present, log_present)
        # Both sides of an absent κ are log p(κ=0 given z): it is the Bayes complement, consistent by construction. On
        # the decoder's side the discriminator is not the decoder's to train, or it would be taught absence twice. Its
        # pull on z balances that of log p(z given C) - log p(z) in "paper"; in "full" that division has none, and
        # neither may this, or f_T makes absent samples look more absent without end.
        if wording.prior == "paper":
            complement, _ = stack.frozen()(_presence_given, z, shared=[0])
        else:
            complement = _where(drawn, log_absent, log_absent.detach())
        log_capacity = log_capacity + torch.where(known_of == 0, 0.5 * (log_absent + complement), 0.0).sum(0)
        if not rows.shape[1]:
            sums.append(z.new_zeros(len(names), 4))
            continue
        known, absent, present, whole = (
            each.gather(1, rows) for each in (known_of == 1, log_absent, log_present, complement)
        )
        encoder, decoder, ratio = stack(
            partial(_present, literal=literal),
            rectangle.take(z),
            rectangle.take(divisor),
            present,
            routed.noise,
            routed.observed,
        )
        if routed.undecided:
            # A guess may not bend the flow towards itself: who it is teaches the discriminators at z as it is.
            guess_absent, guess_present = stack(_presence_given, z.detach(), shared=[0])
            left = []
            for number, name in enumerate(names):
                if name not in routed.undecided:
                    left.append(real[number])
                    continue
                at = routing.groups[routed.undecided[name]].candidate(name)[rows[number]]
                said[routed.undecided[name]][name] = Candidate(
                    (guess_present - guess_absent)[number],
                    rectangle.kinds[name].log_prob_presence()[1],
                    _spread(decoder[number], rows[number], real[number] & at, len(z)),
                    routed.multipliers[number, 0],
                )
                left.append(real[number] & ~at)
            real = torch.stack(left)
        encoder, decoder, share = _with_unknown(known, encoder, decoder, absent, present, whole, literal)
        gap, into = decoder - encoder, rows.flatten()
        data = real if drawn is None else real & ~drawn[rows]
        log_capacity = log_capacity.index_add(0, into, _only(real, 0.5 * (encoder + decoder)).flatten())
        penalty = penalty.index_add(0, into, _only(data, routed.multipliers * gap.abs()).flatten())
        if wording.prior == "paper":
            lost = share.detach() * (0.5 - routed.multipliers * gap.detach().sign())
            weight = weight.index_add(0, into, _only(real, -lost).flatten())
        seen = known & data
        counted = (_only(data, gap.abs()), data, _only(seen, ratio), seen)
        sums.append(torch.stack([each.detach().to(z).sum(1) for each in counted], 1))
    for group, each in zip(routing.groups, said, strict=True):
        decoder, owed, taken = group.summed(each)
        log_capacity = log_capacity + 0.5 * decoder
        penalty = penalty + (owed if drawn is None else torch.where(drawn, 0.0, owed))
        if wording.prior == "paper":
            weight = weight - taken
    prior_weight = weight.mean()
    if drawn is not None:
        log_prob_T = log_prob_T.masked_fill(drawn, torch.nan)
        prior_weight = weight.masked_fill(drawn, 0).sum() / (~drawn).sum()
    return Terms((log_capacity - penalty).mean(), log_prob_T, log_capacity, prior_weight, sums)


def _only(where: Tensor, values: Tensor) -> Tensor:
    """Values there, zeros elsewhere."""
    return torch.where(where, values, 0.0)


def _spread(values: Tensor, rows: Tensor, real: Tensor, size: int) -> Tensor:
    """Values, (m,), at their positions in the batch, (size,), zeros elsewhere; what is not `real` goes nowhere."""
    return values.new_zeros(size).index_add(0, rows, _only(real, values))


def _where(drawn: Tensor | None, then: Tensor, otherwise: Tensor) -> Tensor:
    """`then` for samples that were drawn, `otherwise` for those that were observed."""
    return otherwise if drawn is None else torch.where(drawn, then, otherwise)


def _presence_given(kind: Knowledge, z: Tensor) -> tuple[Tensor, Tensor]:
    return kind.log_prob_presence_given(z)


def _present(
    kind: Knowledge,
    z: Tensor,
    divisor: Tensor,
    log_present: Tensor,
    noise: Tensor,
    observed: Tensor | None,
    literal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """κ = 1, with C as observed or as its encoder fills it in: log p_enc(K given T), log p_dec(T, K) - log p(T), both
    less log q of what was filled in, and log p(z given C) - log p(z); (n,) each."""
    C = kind.encode(z, noise)
    filled_in = torch.ones_like(log_present, dtype=torch.bool)
    if observed is not None:
        filled_in = observed.isnan().any(1)
        C = torch.where(filled_in[:, None], C, observed)
    encoded = kind.log_prob_characteristics_given(C, z)
    # the encoder's own log p(C given z) cancels against log q of a C that it filled in
    log_q = torch.zeros_like(encoded) if literal else torch.where(filled_in, encoded, 0.0)
    ratio = kind.log_prob_latent(z, C) - divisor
    encoder = log_present + encoded - log_q
    decoder = kind.log_prob_presence()[1] + kind.log_prob_characteristics(C) + ratio - log_q
    return encoder, decoder, ratio


def _with_unknown(
    known: Tensor,
    encoder: Tensor,
    decoder: Tensor,
    log_absent: Tensor,
    log_present: Tensor,
    complement: Tensor,
    literal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder and decoder where κ may be missing, and the share of the branch κ = 1 in the decoder.

    Both branches are summed exactly: the encoder's sum to 1, the decoder's are log-sum-exp'd. The paper's wording takes
    the expectation under p(κ given z) instead.
    """
    if literal:
        share = log_present.exp()
        absent = log_absent.exp()
        one_side = [share * encoder + absent * log_absent, share * decoder + absent * complement]
    else:
        share = torch.sigmoid(decoder - complement)
        one_side = [torch.zeros_like(encoder), torch.logaddexp(decoder, complement)]
    encoder, decoder = torch.where(known, encoder, one_side[0]), torch.where(known, decoder, one_side[1])
    return encoder, decoder, share.masked_fill(known, 1)


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
