"""Mental capacity under a consistency constraint, term by term (paper, Eq. 3 to 5).

With a = log p_enc and b = log p_dec, both less log q of what was filled in,

    a = log p(T) + Σ_i a_i,  a_i = log p_enc(K^i given T)        (Eq. 1)
    b = log p(T) + Σ_i b_i,  b_i = log p_dec(K^i, T) / p(T)      (Eq. 2)
    log M = ½ (a + b)                                            (Eq. 3)
    maximise E log M - Σ_i λ_i E |a_i - b_i|                     (Eq. 5; E log M is Eq. 4)

`prior` is log p(T); `absent_terms`, `present_terms` and `exclusive_terms` add those of every K^i.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from tzk_core.knowledge import discriminate
from tzk_core.knowledge.stacking import Stack
from tzk_core.model import SharedFlow
from tzk_core.objective.exclusive import Candidate
from tzk_core.objective.latents import Encodable
from tzk_core.objective.routing import Route, Routing
from tzk_core.objective.sides import (
    PresenceSides,
    Sides,
    presence_sides,
    present_sides,
    summed_over_presence,
)
from tzk_core.objective.wording import Wording


class Terms(NamedTuple):
    """The objective on one batch, as `Capacity` has it, but by position.

    sums: (knowledge, 4), in the order of the routes. The four are Σ |log p_dec - log p_enc| and its number of samples,
    Σ log p(z given C) - log p(z) and its number of samples.
    """

    value: Tensor
    log_prob_T: Tensor
    log_capacity: Tensor
    prior_weight: Tensor
    sums: Tensor


def terms(flow: SharedFlow, batch: Encodable, routing: Routing, *, wording: Wording, emphasis: float) -> Terms:
    """Eq. 5 on a routed batch, without data-dependent control flow: one graph for `torch.compile`.

    Under `torch.autocast` that is for the shared flow alone: log-odds and densities of knowledge types are a few
    products of the logarithms that the constraint compares.
    """
    encoded = encode(flow, batch, routing, wording=wording, emphasis=emphasis)
    device = encoded.z.device.type
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
        return knowledge_terms(prior(encoded), encoded).finish(encoded)


class Encoded(NamedTuple):
    """A batch in z, and how it is evaluated; (batch,) each but z, in nats.

    log_prob_z: log p(z) as the decoder divides by it. sampled, log_q: as of `Latents`.
    """

    z: Tensor
    log_prob_T: Tensor
    log_prob_z: Tensor
    sampled: Tensor | None
    log_q: Tensor
    routing: Routing
    wording: Wording
    emphasis: float


class Site(NamedTuple):
    """One route with its parameters stacked.

    Also p(κ given z), (k, r), at the samples where absence has a weight.
    """

    route: Route
    stack: Stack
    presence: PresenceSides


class Total(NamedTuple):
    """What the terms add up to; (batch,) each, in nats.

    log_capacity: log M (Eq. 3), less log q of what was filled in.
    penalty: Σ λ_i |log p_enc - log p_dec| (Eq. 5).
    labels: Σ log p(κ given z) of every κ that was observed; None where they have no emphasis.
    prior_weight: the weight of log p(T) in the gradient.
    sums: as of `Terms`, by route.
    candidates: the position of an exclusive group, one of its members, and its terms.
    """

    log_capacity: Tensor
    penalty: Tensor
    labels: Tensor | None
    prior_weight: Tensor
    sums: tuple[Tensor, ...] = ()
    candidates: tuple[tuple[int, str, Candidate], ...] = ()

    def and_sums(self, sums: Tensor) -> Total:
        """The same with the sums of one more route."""
        return self._with((*self.sums, sums), self.candidates)

    def and_candidates(self, candidates: Sequence[tuple[int, str, Candidate]]) -> Total:
        """The same with more candidates."""
        return self._with(self.sums, (*self.candidates, *candidates))

    def _with(self, sums: tuple[Tensor, ...], candidates: tuple[tuple[int, str, Candidate], ...]) -> Total:
        """The same but for these; torch 2.6 does not compile `_replace`."""
        return Total(self.log_capacity, self.penalty, self.labels, self.prior_weight, sums, candidates)

    def plus(
        self,
        at: Tensor | None = None,
        *,
        log_capacity: Tensor | None = None,
        penalty: Tensor | None = None,
        labels: Tensor | None = None,
        prior_weight: Tensor | None = None,
    ) -> Total:
        """Add values, (n,), at positions in the batch, (n,); None for all of it."""
        return Total(
            _added(self.log_capacity, at, log_capacity),
            _added(self.penalty, at, penalty),
            None if self.labels is None else _added(self.labels, at, labels),
            _added(self.prior_weight, at, prior_weight),
            self.sums,
            self.candidates,
        )

    def of_samples(self, emphasis: float) -> Tensor:
        """What Eq. 5 is the mean of, (batch,)."""
        value = self.log_capacity - self.penalty
        return value if self.labels is None else value + emphasis * self.labels

    def finish(self, encoded: Encoded) -> Terms:
        """Eq. 5: the mean of log M less the penalty, and of the labels' emphasis."""
        log_prob_T, prior_weight = encoded.log_prob_T - encoded.log_q, self.prior_weight.mean()
        if encoded.sampled is not None:
            log_prob_T = log_prob_T.masked_fill(encoded.sampled, torch.nan)
            prior_weight = self.prior_weight.masked_fill(encoded.sampled, 0).sum() / (~encoded.sampled).sum()
        value = self.of_samples(encoded.emphasis)
        sums = torch.cat([encoded.z.new_zeros(0, 4), *self.sums])
        return Terms(value.mean(), log_prob_T, self.log_capacity, prior_weight, sums)


def encode(flow: SharedFlow, batch: Encodable, routing: Routing, *, wording: Wording, emphasis: float) -> Encoded:
    """Encode the batch: z, log p(T), and log p(z) as the decoder divides by it.

    The prior's "full" wording takes the gradient of log p(T) out of the division and leaves that of the Jacobian in,
    which then balances log p(z given C). Detaching log p(z) alone would let f_T shrink z without cost. What was
    sampled keeps it: log p(z) has nothing but the sample to move there, and -½ KL needs its whole gradient.
    """
    latents = batch.encoded(flow)
    sampled = latents.sampled
    log_prob_z = divisor = flow.base.log_prob(latents.z)
    log_prob_T = log_prob_z + latents.logabsdet
    if not wording.divides_by_prior:
        divisor = log_prob_T.detach() - latents.logabsdet
        divisor = divisor if sampled is None else torch.where(sampled, log_prob_z, divisor)
    return Encoded(latents.z, log_prob_T, divisor, sampled, latents.log_q, routing, wording, emphasis)


def prior(encoded: Encoded) -> Total:
    """log p(T), less log q of the T that were sampled."""
    log_prob_T = encoded.log_prob_T
    log_capacity = log_prob_T if encoded.wording.is_literal else log_prob_T - encoded.log_q
    zeros = torch.zeros_like(log_prob_T)
    return Total(log_capacity, zeros, zeros if encoded.emphasis else None, torch.ones_like(log_prob_T))


def knowledge_terms(total: Total, encoded: Encoded) -> Total:
    """Add the terms of every routed knowledge type."""
    for route in encoded.routing.routes:
        site = evaluate_presence(encoded, route)
        total = absent_terms(total, encoded, site)
        total = present_terms(total, encoded, site)
    return exclusive_terms(total, encoded)


def evaluate_presence(encoded: Encoded, route: Route) -> Site:
    """p(κ given z) of one route, at the samples where absence has a weight."""
    stack, (z, sampled, at) = route.rectangle.stack, (encoded.z, encoded.sampled, route.at)
    if at is not None:
        z, sampled = z[at], None if sampled is None else sampled[at]
    divides = encoded.wording.divides_by_prior
    return Site(route, stack, presence_sides(stack, z, sampled, divides_by_prior=divides, shared=[0]))


def absent_terms(total: Total, encoded: Encoded, site: Site) -> Total:
    """Add κ^i = 0: log p(κ=0 given z), ½ of it from each side.

    Both sides are equal, so the constraint of Eq. 5 has no such term.
    """
    at, weights, presence = site.route.at, site.route.weights, site.presence
    total = total.plus(at, log_capacity=(weights * 0.5 * (presence.absent + presence.complement)).sum(0))
    return total.plus(at, labels=(weights * presence.absent).sum(0)) if encoded.emphasis else total


def present_terms(total: Total, encoded: Encoded, site: Site) -> Total:
    """Add κ^i = 1, or missing: ½ (a_i + b_i) - λ_i |a_i - b_i|."""
    route, rectangle = site.route, site.route.rectangle
    if not rectangle.rows.shape[1]:
        return total.and_sums(encoded.z.new_zeros(len(rectangle.names), 4))
    z, at = rectangle.take(encoded.z), rectangle.rows.flatten()
    presence = _presence_of_samples(encoded, site, z)
    if encoded.emphasis:
        total = total.plus(at, labels=_only(route.known & rectangle.real, presence.present).flatten())
    wording = encoded.wording
    sides: Sides = site.stack(
        partial(present_sides, wording=wording, kl_weight=encoded.routing.kl_weight),
        z,
        rectangle.take(encoded.log_prob_z),
        presence.present,
        route.noise,
        route.observed,
    )
    decided = rectangle.real
    if route.groups:
        candidates, decided = _candidates(encoded, site, z=z, decoder=sides.decoder)
        total = total.and_candidates(candidates)
    sides, share = summed_over_presence(sides, presence, route.known, is_literal=wording.is_literal)
    return _constrained(total, encoded, route, sides=sides, share=share, decided=decided)


def exclusive_terms(total: Total, encoded: Encoded) -> Total:
    """Add exclusive knowledge types, summed over which one it is."""
    for number, group in enumerate(encoded.routing.groups):
        members = {name: candidate for position, name, candidate in total.candidates if position == number}
        decoder, penalty, lost_weight = group.summed(members)
        total = total.plus(
            log_capacity=0.5 * decoder,
            penalty=penalty if encoded.sampled is None else torch.where(encoded.sampled, 0.0, penalty),
            prior_weight=-lost_weight if encoded.wording.divides_by_prior else None,
        )
    return total


def _presence_of_samples(encoded: Encoded, site: Site, z: Tensor) -> PresenceSides:
    """p(κ given z) of a rectangle, (k, m), looked up where it was evaluated."""
    rectangle = site.route.rectangle
    if site.route.at is None:
        return PresenceSides(*(values.gather(1, rectangle.rows) for values in site.presence))
    sampled = None if encoded.sampled is None else rectangle.take(encoded.sampled)
    return presence_sides(site.stack, z, sampled, divides_by_prior=encoded.wording.divides_by_prior)


def _candidates(
    encoded: Encoded, site: Site, *, z: Tensor, decoder: Tensor
) -> tuple[list[tuple[int, str, Candidate]], Tensor]:
    """Candidates, as of `Total`, and where samples are decided, (k, m).

    Candidate weights use a detached z, so that the flow is not trained to confirm its own guess.
    """
    route, rectangle = site.route, site.route.rectangle
    absent, present = site.stack(discriminate, z.detach())
    log_odds, size = present - absent, len(encoded.z)
    candidates, decided = [], []
    for number, name in enumerate(rectangle.names):
        rows, real = rectangle.rows[number], rectangle.real[number]
        if name not in route.groups:
            decided.append(real)
            continue
        group = route.groups[name]
        is_candidate = real & encoded.routing.groups[group].is_candidate(name)[rows]
        candidate = Candidate(
            _spread(log_odds[number], rows, where=is_candidate, size=size),
            rectangle.knowledge[name].log_prob_presence().present,
            _spread(decoder[number], rows, where=is_candidate, size=size),
            route.multipliers[number, 0],
        )
        candidates.append((group, name, candidate))
        decided.append(real & ~is_candidate)
    return candidates, torch.stack(decided)


def _constrained(
    total: Total, encoded: Encoded, route: Route, *, sides: Sides, share: Tensor, decided: Tensor
) -> Total:
    """Add both sides, (k, m), and the constraint, which is one on observed T."""
    rows = route.rectangle.rows
    at, gap = rows.flatten(), sides.decoder - sides.encoder
    data = decided if encoded.sampled is None else decided & ~encoded.sampled[rows]
    total = total.plus(
        at,
        log_capacity=_only(decided, 0.5 * (sides.encoder + sides.decoder)).flatten(),
        penalty=_only(data, route.multipliers * gap.abs()).flatten(),
    )
    if encoded.wording.divides_by_prior:
        lost_weight = share.detach() * (0.5 - route.multipliers * gap.detach().sign())
        total = total.plus(at, prior_weight=_only(decided, -lost_weight).flatten())
    present = route.known & data
    sums = (_only(data, gap.abs()), data, _only(present, sides.log_ratio), present)
    by_knowledge = torch.stack([values.detach().to(encoded.z).sum(1) for values in sums], 1)
    return total.and_sums(by_knowledge)


def _added(total: Tensor, at: Tensor | None, values: Tensor | None) -> Tensor:
    """The total, (batch,), with values, (n,), added at positions; None for all."""
    if values is None:
        return total
    return total + values if at is None else total.index_add(0, at, values)


def _only(where: Tensor, values: Tensor) -> Tensor:
    """Values where a condition holds, zeros elsewhere."""
    return torch.where(where, values, 0.0)


def _spread(values: Tensor, rows: Tensor, *, where: Tensor, size: int) -> Tensor:
    """Values, (m,), at their positions in the batch, (size,), where a condition holds; zeros elsewhere."""
    return values.new_zeros(size).index_add(0, rows, _only(where, values))
