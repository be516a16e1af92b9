"""The objective: mental capacity under a consistency constraint, whatever is missing of T and K (paper, Eq. 3 to 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tzk_core.absence import Absences, every_absence
from tzk_core.dreams import LatentNoise, Latents, latents
from tzk_core.errors import TzkError
from tzk_core.exclusive import Candidate, Undecided
from tzk_core.knowledge import Knowledge
from tzk_core.model import TzK
from tzk_core.observations import Observations
from tzk_core.stacking import MODULES, Rectangle, Stack, Stacks, rectangles

Noise = Callable[[str, int], Tensor]
"""Standard Gaussian noise, (n, c), for the characteristics of the named knowledge type."""


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
) -> Capacity:
    """Evaluates Eq. 5 on one batch after encoding it once.

    `noise` gives the one reparametrised sample of every C that was not observed, `latent_noise` that of every T. In the
    terms of a T that was drawn the discriminators are frozen: no gradient reaches their parameters, while one does
    reach the sample (paper, Training). A knowledge type that the observations do not mention takes no part. Multipliers
    default to 0. `fixed_flow` leaves the shared flow out of the gradient, for knowledge that is added to it. `emphasis`
    adds that many times log p(κ given T) of every κ that was observed (`Settings`). `absences`
    says which log p(κ=0 given z) are evaluated: with `sampled_absences` the cost is that of the knowledge in the batch,
    whatever else the model has, and value and gradients are unbiased. `stacks` says where the parameters of several
    knowledge types come from.
    """
    literal = wording.fill_in == "literal"
    presence_of, weights_of = _told(observations, absences)
    kinds = {name: model.find(name) for name in presence_of}
    batch = latents(model, observations, presence_of, latent_noise, fixed_flow, with_jacobian=literal)
    z, drawn = batch.z, batch.drawn
    log_prob_z = model.flow.base.log_prob(z)
    log_prob_T = log_prob_z + batch.logabsdet
    # log p(z) as the decoder divides by it. "full" takes the gradient of log p(T) out and leaves that of the
    # Jacobian in, which then balances log p(z given C): detaching log p(z) alone would let f_T shrink z without cost.
    # What was drawn keeps it: there log p(z) has nothing but the sample to move, and -½ KL wants its whole pull.
    divisor = log_prob_z
    if wording.prior == "full":
        divisor = _where(drawn, log_prob_z, log_prob_T.detach() - batch.logabsdet)

    log_capacity = log_prob_T if literal else log_prob_T - batch.log_q
    penalty = torch.zeros_like(log_prob_T)
    told = torch.zeros_like(log_prob_T)
    weight = torch.ones_like(log_prob_T)
    inconsistency: dict[str, Tensor] = {}
    conditional: dict[str, Tensor] = {}
    skipped = wording.unlabelled == "skip"
    possible = _rows(presence_of, lambda presence: presence == 1 if skipped else presence != 0)
    groups = [[name for name in group if name in presence_of] for group in observations.exclusive]
    undecided = [] if literal or skipped else [Undecided(group, presence_of) for group in groups if group]
    group_of = {name: group for group in undecided if group.rows.any() for name in group.members}
    for rectangle in rectangles(kinds, possible, stacks):
        names, stack, rows, real = rectangle.names, rectangle.stack, rectangle.rows, rectangle.real
        presence = torch.stack([presence_of[name] for name in names])
        weights = torch.stack([weights_of[name] for name in names]).to(z)
        at = _few(weights) if rows.numel() else None
        told_z, told_drawn = (z, drawn) if at is None else (z[at], None if drawn is None else drawn[at])
        log_absent, log_present = _presence_at(stack, told_z, told_drawn, shared=[0])
        # Both sides of an absent κ are log p(κ=0 given z): it is the Bayes complement, consistent by construction. On
        # the decoder's side the discriminator is not the decoder's to train, or it would be taught absence twice. Its
        # pull on z balances that of log p(z given C) - log p(z) in "paper"; in "full" that division has none, and
        # neither may this, or f_T makes absent samples look more absent without end.
        complement_of = partial(_complement, stack, paper=wording.prior == "paper")
        complement = complement_of(told_z, told_drawn, log_absent, shared=[0])
        if at is None:
            log_capacity = log_capacity + (weights * 0.5 * (log_absent + complement)).sum(0)
        else:
            total = (weights[:, at] * 0.5 * (log_absent + complement)).sum(0)
            log_capacity = log_capacity.index_add(0, at, total)
        if emphasis:
            if at is None:
                told = told + (weights * log_absent).sum(0)
            else:
                told = told.index_add(0, at, (weights[:, at] * log_absent).sum(0))
        if not rows.numel():
            continue
        here = rectangle.take(z)
        if at is None:
            absent, present, whole = (each.gather(1, rows) for each in (log_absent, log_present, complement))
        else:
            drawn_here = None if drawn is None else rectangle.take(drawn)
            absent, present = _presence_at(stack, here, drawn_here)
            whole = complement_of(here, drawn_here, absent)
        known = (presence == 1).gather(1, rows)
        if emphasis:
            told = told.index_add(0, rows[known & real], present[known & real])
        encoder, decoder, ratio = stack(
            partial(_present, literal=literal),
            here,
            rectangle.take(divisor),
            present,
            _padded(noise, rectangle).to(z),
            _observed(batch, rectangle),
        )
        if not group_of.keys().isdisjoint(names):
            # A guess may not bend the flow towards itself: who it is teaches the discriminators at z as it is.
            guess_absent, guess_present = stack(_presence_given, here.detach())
            odds = guess_present - guess_absent
            for number, name in enumerate(names):
                if name in group_of:
                    may = real[number] & group_of[name].candidate(name)[rows[number]]
                    prior = kinds[name].log_prob_presence()[1].expand(int(may.sum()))
                    factor = (multipliers or {}).get(name, 0.0)
                    group_of[name].add(name, Candidate(odds[number, may], prior, decoder[number, may], factor))
                    real[number] &= ~may
        encoder, decoder, share = _with_unknown(known, encoder, decoder, absent, present, whole, literal)
        gap, into = decoder - encoder, rows[real]
        factors = z.new_tensor([(multipliers or {}).get(name, 0.0) for name in names])[:, None]
        log_capacity = log_capacity.index_add(0, into, 0.5 * (encoder + decoder)[real])
        data = real if drawn is None else real & ~drawn[rows]
        penalty = penalty.index_add(0, rows[data], (factors * gap.abs())[data])
        if wording.prior == "paper":
            lost = share.detach() * (0.5 - factors * gap.detach().sign())
            weight = weight.index_add(0, into, -lost[real])
        inconsistency |= _means(names, gap.detach().abs(), data)
        conditional |= _means(names, ratio.detach(), known & data)
    for group in dict.fromkeys(group_of.values()):
        decoder, owed, lost = group.summed()
        into = torch.nonzero(group.rows).squeeze(1)
        log_capacity = log_capacity.index_add(0, into, 0.5 * decoder)
        penalty = penalty.index_add(0, into, owed if drawn is None else torch.where(drawn[into], 0.0, owed))
        if wording.prior == "paper":
            weight = weight.index_add(0, into, -lost)
    if drawn is not None:
        log_prob_T, weight = log_prob_T.masked_fill(drawn, torch.nan), weight[~drawn]
    value = (log_capacity - penalty + emphasis * told).mean()
    return Capacity(value, log_prob_T, log_capacity, inconsistency, conditional, weight.mean())


def _where(drawn: Tensor | None, then: Tensor, otherwise: Tensor) -> Tensor:
    """`then` for samples that were drawn, `otherwise` for those that were observed."""
    return otherwise if drawn is None else torch.where(drawn, then, otherwise)


def _few(weights: Tensor) -> Tensor | None:
    """The samples, (r,), of which any absence has a weight, (k, batch); None for half of the batch or more: it is then
    evaluated as a whole."""
    at = torch.nonzero((weights != 0).any(0)).squeeze(1)
    return at if 2 * len(at) < weights.shape[1] else None


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


def _means(names: Sequence[str], values: Tensor, among: Tensor) -> dict[str, Tensor]:
    """By knowledge, the mean of its row of `values`, (k, m), where `among`, (k, m); those without any are left out."""
    counts = among.sum(1)
    means = torch.where(among, values, 0.0).sum(1) / counts
    return {name: mean for name, mean, count in zip(names, means, counts.tolist(), strict=True) if count}


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


def _told(observations: Observations, absences: Absences) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By knowledge, (batch,) each: κ in {0, 1, nan}, and the weight of log p(κ=0 given z); of all that take part."""
    presence = _presence(observations)
    weights = absences(presence)
    part = torch.nonzero(((presence != 0) | (weights != 0)).any(1)).squeeze(1)
    names = [observations.knowledge[row] for row in part.tolist()]
    return tuple(dict(zip(names, table[part], strict=True)) for table in (presence, weights))  # type: ignore[return-value]


def _presence(observations: Observations) -> Tensor:
    """κ, (k, batch) in {0, 1, nan}; an observed C says that κ = 1 where nobody else does."""
    presence = observations.presence.T.clone()
    for number, name in enumerate(observations.knowledge):
        if name in observations.characteristics:
            row = presence[number]
            row[row.isnan() & ~observations.characteristics[name].isnan().any(1)] = 1.0
    return presence


def _rows(presence_of: Mapping[str, Tensor], where: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """By knowledge, the positions in the batch, (n,), at which its presence is as asked for."""
    if not presence_of:
        return {}
    chosen = where(torch.stack(list(presence_of.values())))
    rows = torch.nonzero(chosen)[:, 1].split(chosen.sum(1).tolist())
    return dict(zip(presence_of, rows, strict=True))


def _padded(noise: Noise, rectangle: Rectangle) -> Tensor:
    """The noise of every sample of a rectangle, (k, m, c), zeros where there is padding."""
    counts = rectangle.real.sum(1).tolist()
    drawn = [noise(name, count) for name, count in zip(rectangle.names, counts, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(drawn, batch_first=True)


def _observed(batch: Latents, rectangle: Rectangle) -> Tensor | None:
    """C as observed, or as T was drawn from it, (k, m, c), nan where it was neither; None if it never was."""
    z, given = batch.z, batch.characteristics
    if not any(name in given for name in rectangle.names):
        return None
    missing = torch.full((len(z), rectangle.stack.characteristics), torch.nan)
    columns = (given.get(name, missing).to(z) for name in rectangle.names)
    return torch.stack([each.index_select(0, rows) for each, rows in zip(columns, rectangle.rows, strict=True)])


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
