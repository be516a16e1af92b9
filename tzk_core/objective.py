"""The objective: mental capacity under a consistency constraint, whatever is missing of T and K (paper, Eq. 3 to 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tzk_core.absence import Absences, every_absence
from tzk_core.dreams import LatentNoise, Latents, encoded, latents
from tzk_core.errors import TzkError
from tzk_core.exclusive import Candidate
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.stacking import MODULES, Stack, Stacks
from tzk_core.model import SharedFlow, TzK
from tzk_core.observations import Observations
from tzk_core.routing import Noise as Noise
from tzk_core.routing import Routing, route, told_of


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
    emphasis: float = 0.0,
    absences: Absences = every_absence,
    stacks: Stacks = MODULES,
    evaluate: Callable[..., Terms] | None = None,
    sizes: dict[str, int] | None = None,
    kl_weight: float = 1.0,
) -> Capacity:
    """Evaluates Eq. 5 on one batch after encoding it once.

    `noise` gives the one reparametrised sample of every C that was not observed, `latent_noise` that of every T. In the
    terms of a T that was drawn the discriminators are frozen: no gradient reaches their parameters, while one does
    reach the sample (paper, Training). A knowledge type that the observations do not mention takes no part. Multipliers
    default to 0. `fixed_flow` leaves the shared flow out of the gradient, for knowledge that is added to it. `emphasis`
    adds that many times log p(κ given T) of every κ that was observed (`Settings`). `absences` says which
    log p(κ=0 given z) are evaluated: with `sampled_absences` the cost is that of the knowledge in the batch, whatever
    else the model has, and value and gradients are unbiased. `stacks` says where the parameters of several knowledge
    types come from. `kl_weight` is that of the KL from p(C given z) to p(C) of a C that was filled in, which training
    raises from 0 to 1; the paper's wording of `fill_in` has none. `evaluate` takes the place of `terms`, for instance
    compiled; `sizes` as of `rectangles`.
    """
    literal, skipped = wording.fill_in == "literal", wording.unlabelled == "skip"
    told = told_of(observations, absences)
    kinds = {name: model.find(name) for name in told.presence}
    batch: Latents | Observations = observations
    if observations.missing() is not None:
        batch = latents(model, observations, told.presence, latent_noise, fixed_flow, with_jacobian=literal)
    summed = not (literal or skipped)
    routing = route(
        kinds,
        observations,
        told,
        batch.characteristics,
        noise,
        multipliers,
        skipped,
        summed,
        stacks,
        sizes,
        1.0 if literal else kl_weight,
    )
    found = (evaluate or terms)(model.flow, batch, routing, wording, fixed_flow, emphasis)
    names = [name for routed in routing.routes for name in routed.rectangle.names]
    gap, gaps, ratio, ratios = found.sums.cpu().unbind(1)
    return Capacity(
        found.value,
        found.log_prob_T,
        found.log_capacity,
        _means(names, gap, gaps),
        _means(names, ratio, ratios),
        found.prior_weight,
    )


def _means(names: Sequence[str], sums: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """By knowledge, its sum over its count; those without any are left out."""
    return {
        name: mean for name, mean, count in zip(names, sums / counts, counts.tolist(), strict=True) if count
    }


class Terms(NamedTuple):
    """What `mental_capacity` is made of, as `Capacity` has it, but by position. sums: (knowledge, 4), in the order of
    the rectangles, Σ |log p_dec - log p_enc| and over how many samples, Σ log p(z given C) - log p(z) and over how
    many."""

    value: Tensor
    log_prob_T: Tensor
    log_capacity: Tensor
    prior_weight: Tensor
    sums: Tensor


def terms(
    flow: SharedFlow,
    batch: Latents | Observations,
    routing: Routing,
    wording: Wording,
    fixed_flow: bool,
    emphasis: float,
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
    labels = torch.zeros_like(log_prob_T)
    weight = torch.ones_like(log_prob_T)
    said: list[dict[str, Candidate]] = [{} for _ in routing.groups]
    sums = [z.new_zeros(0, 4)]
    for routed in routing.routes:
        rectangle, weights, at, known = routed.rectangle, routed.weights, routed.at, routed.known
        names, stack, rows, real = rectangle.names, rectangle.stack, rectangle.rows, rectangle.real
        told_z, told_drawn = (z, drawn) if at is None else (z[at], None if drawn is None else drawn[at])
        log_absent, log_present = _presence_at(stack, told_z, told_drawn, shared=[0])
        # Both sides of an absent κ are log p(κ=0 given z): it is the Bayes complement, consistent by construction. On
        # the decoder's side the discriminator is not the decoder's to train, or it would be taught absence twice. Its
        # pull on z balances that of log p(z given C) - log p(z) in "paper"; in "full" that division has none, and
        # neither may this, or f_T makes absent samples look more absent without end.
        complement_of = partial(_complement, stack, paper=wording.prior == "paper")
        complement = complement_of(told_z, told_drawn, log_absent, shared=[0])
        log_capacity = _added(log_capacity, at, (weights * 0.5 * (log_absent + complement)).sum(0))
        if emphasis:
            labels = _added(labels, at, (weights * log_absent).sum(0))
        if not rows.shape[1]:
            sums.append(z.new_zeros(len(names), 4))
            continue
        here, into = rectangle.take(z), rows.flatten()
        if at is None:
            absent, present, whole = (each.gather(1, rows) for each in (log_absent, log_present, complement))
        else:
            drawn_here = None if drawn is None else rectangle.take(drawn)
            absent, present = _presence_at(stack, here, drawn_here)
            whole = complement_of(here, drawn_here, absent)
        if emphasis:
            labels = _added(labels, into, _only(known & real, present).flatten())
        encoder, decoder, ratio = stack(
            partial(_present, literal=literal, kl_weight=routing.kl_weight),
            here,
            rectangle.take(divisor),
            present,
            routed.noise,
            routed.observed,
        )
        if routed.undecided:
            # A guess may not bend the flow towards itself: who it is teaches the discriminators at z as it is.
            guess_absent, guess_present = stack(_presence_given, here.detach())
            odds, left = guess_present - guess_absent, []
            for number, name in enumerate(names):
                if name not in routed.undecided:
                    left.append(real[number])
                    continue
                group = routed.undecided[name]
                may = real[number] & routing.groups[group].candidate(name)[rows[number]]
                said[group][name] = Candidate(
                    _spread(odds[number], rows[number], may, len(z)),
                    rectangle.kinds[name].log_prob_presence()[1],
                    _spread(decoder[number], rows[number], may, len(z)),
                    routed.multipliers[number, 0],
                )
                left.append(real[number] & ~may)
            real = torch.stack(left)
        encoder, decoder, share = _with_unknown(known, encoder, decoder, absent, present, whole, literal)
        gap = decoder - encoder
        data = real if drawn is None else real & ~drawn[rows]
        log_capacity = _added(log_capacity, into, _only(real, 0.5 * (encoder + decoder)).flatten())
        penalty = _added(penalty, into, _only(data, routed.multipliers * gap.abs()).flatten())
        if wording.prior == "paper":
            lost = share.detach() * (0.5 - routed.multipliers * gap.detach().sign())
            weight = _added(weight, into, _only(real, -lost).flatten())
        seen = known & data
        counted = (_only(data, gap.abs()), data, _only(seen, ratio), seen)
        sums.append(torch.stack([each.detach().to(z).sum(1) for each in counted], 1))
    for undecided, each in zip(routing.groups, said, strict=True):
        decoder, owed, taken = undecided.summed(each)
        log_capacity = log_capacity + 0.5 * decoder
        penalty = penalty + (owed if drawn is None else torch.where(drawn, 0.0, owed))
        if wording.prior == "paper":
            weight = weight - taken
    prior_weight = weight.mean()
    if drawn is not None:
        log_prob_T = log_prob_T.masked_fill(drawn, torch.nan)
        prior_weight = weight.masked_fill(drawn, 0).sum() / (~drawn).sum()
    value = log_capacity - penalty
    if emphasis:
        value = value + emphasis * labels
    return Terms(value.mean(), log_prob_T, log_capacity, prior_weight, torch.cat(sums))


def _added(total: Tensor, at: Tensor | None, values: Tensor) -> Tensor:
    """The total, (batch,), with values added at positions in the batch; None for all of them."""
    return total + values if at is None else total.index_add(0, at, values)


def _only(where: Tensor, values: Tensor) -> Tensor:
    """Values there, zeros elsewhere."""
    return torch.where(where, values, 0.0)


def _spread(values: Tensor, rows: Tensor, real: Tensor, size: int) -> Tensor:
    """Values, (m,), at their positions in the batch, (size,), zeros elsewhere; what is not `real` goes nowhere."""
    return values.new_zeros(size).index_add(0, rows, _only(real, values))


def _where(drawn: Tensor | None, then: Tensor, otherwise: Tensor) -> Tensor:
    """`then` for samples that were drawn, `otherwise` for those that were observed."""
    return otherwise if drawn is None else torch.where(drawn, then, otherwise)


def _presence_at(
    stack: Stack, z: Tensor, drawn: Tensor | None, shared: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """log p(κ=0 given z) and log p(κ=1 given z), (k, m) each; where z was drawn no gradient reaches discriminators."""
    found = stack(_presence_given, z, shared=shared)
    if drawn is None:
        return found
    frozen = stack.frozen()(_presence_given, z, shared=shared)
    return torch.where(drawn, frozen[0], found[0]), torch.where(drawn, frozen[1], found[1])


def _complement(
    stack: Stack, z: Tensor, drawn: Tensor | None, log_absent: Tensor, shared: Sequence[int] = (), paper: bool = False
) -> Tensor:
    """The decoder's log p(κ=0 given z), (k, m): the encoder's, which trains no discriminator."""
    if paper:
        return stack.frozen()(_presence_given, z, shared=shared)[0]
    return _where(drawn, log_absent, log_absent.detach())


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
    kl_weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """κ = 1, with C as observed or as its encoder fills it in: log p_enc(K given T), log p_dec(T, K) - log p(T), both
    less log q of what was filled in, and log p(z given C) - log p(z); (n,) each. `kl_weight`, a scalar, is that of
    log p(C) - log q of a C that was filled in."""
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
    weight = torch.where(filled_in, kl_weight, 1.0)
    decoder = kind.log_prob_presence()[1] + weight * kind.log_prob_characteristics(C) + ratio - weight * log_q
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
