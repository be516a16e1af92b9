"""The objective of one batch: mental capacity and consistency (paper, Eq. 3 to 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from tzk_core.knowledge.stacking import MODULES, Stacks
from tzk_core.model import SharedFlow, TzK
from tzk_core.objective.extra import TermBatch, WeightedTerm, means, weighted
from tzk_core.objective.latents import Encodable, LatentNoise, encodable
from tzk_core.objective.negatives import Absences, every_absence
from tzk_core.objective.owned import OwnedTerms, Owners, owned_terms
from tzk_core.objective.routing import Noise, Routing, batch_labels, may_have, presence, route
from tzk_core.objective.shard import Shard
from tzk_core.objective.terms import Terms, terms
from tzk_core.objective.wording import Wording
from tzk_core.observations import Observations


class Evaluator(Protocol):
    """`terms.terms`, or what takes its place: compiled.

    `sizes`, where it has any, keeps knowledge types together over batches, see `stacking.rectangles`.
    """

    def __call__(
        self, flow: SharedFlow, batch: Encodable, routing: Routing, *, wording: Wording, emphasis: float
    ) -> Terms: ...


@dataclass(frozen=True, kw_only=True)
class Objective:
    """How Eq. 5 is evaluated, whatever the batch.

    wording: the choice between the paper's wording and a bounded one.
    emphasis: adds that many times log p(κ given T) of every κ that was observed (`Settings`).
    kl_weight: the weight of the KL from p(C given z) to p(C) of a C that was filled in, which training raises from 0
        to 1. The paper's wording of `fill_in` has no such KL.
    fixed_flow: whether the shared flow is left out of the gradient, for knowledge that is added to it.
    absences: which log p(κ=0 given z) are evaluated. With `sampled_absences` the cost is that of the knowledge in the
        batch, whatever else the model has, and value and gradients are unbiased.
    stacks: where the parameters of several knowledge types come from.
    evaluator: what evaluates a routed batch.
    terms: what is added to Eq. 5, with weights; with none of them the objective is Eq. 5.
    shard: of the batch, which is all that is evaluated; None for the whole batch.
    owners: of knowledge types that one process evaluates for all, at the samples of all shards; None for none.
    """

    wording: Wording = Wording()
    emphasis: float = 0.0
    kl_weight: float = 1.0
    fixed_flow: bool = False
    absences: Absences = every_absence
    stacks: Stacks = MODULES
    evaluator: Evaluator = terms
    terms: tuple[WeightedTerm, ...] = ()
    shard: Shard | None = None
    owners: Owners | None = None

    @property
    def sizes(self) -> dict[str, int] | None:
        """The classes of counts that the evaluator keeps knowledge types in."""
        return getattr(self.evaluator, "sizes", None)


@dataclass(frozen=True)
class Capacity:
    """The objective on one batch, in nats.

    value: a scalar, the mean of log M - Σ λ_i |log p_enc - log p_dec|, to be maximised (Eq. 5).
    log_prob_T: (batch,), log p(T), nan where T is missing.
    log_capacity: (batch,), log M (Eq. 3) less log q of what was filled in.
    inconsistency: by knowledge, g_i over the samples in which i is not known to be absent; elsewhere it is 0.
    conditional: by knowledge, the mean log p(z given C) - log p(z) of the samples in which it is present, with C from
        its encoder where it was not observed.
    prior_weight: the mean weight of log p(T) in the gradient, 1 - Σ_present (½ - λ_i s_i) in the paper's wording; nan
        where every T is missing.
    sums: by knowledge, (4,), the sums and numbers of samples that those means are of, as of `Terms.sums`.
    terms: by name, the mean of what `Objective.terms` add to `value`, without its weight.
    owned: with owners, what the knowledge types of this process add to `log_capacity` of the whole batch, (batch,). All
        other values are of the shard with them.

    Samples whose T is missing count in `value` and `log_capacity` alone: the constraint is one on data.
    """

    value: Tensor
    log_prob_T: Tensor
    log_capacity: Tensor
    inconsistency: dict[str, Tensor]
    conditional: dict[str, Tensor]
    prior_weight: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    terms: dict[str, Tensor] = field(default_factory=dict)
    owned: Tensor | None = None


def mental_capacity(
    model: TzK,
    observations: Observations,
    noise: Noise,
    *,
    multipliers: Mapping[str, float] | None = None,
    latent_noise: LatentNoise | None = None,
    objective: Objective = Objective(),
) -> Capacity:
    """Evaluate Eq. 5 on one batch after encoding it once.

    In the terms of a T that was sampled the discriminators are frozen: no gradient reaches their parameters, while one
    does reach the sample (paper, Training). A knowledge type that the observations do not mention takes no part.

    Args:
        noise: the noise of the one reparametrised sample of every C that was not observed.
        multipliers: λ by knowledge type; 0 for those that are not in it.
        latent_noise: the noise of the one sample of every T that was not observed.
    """
    wording = objective.wording
    labels = batch_labels(observations, objective.absences)
    if objective.shard is not None and not objective.terms:
        observations = observations.without_presence()  # of which shards are taken, and labels have what counts
    batch = encodable(
        model,
        observations,
        labels.presence,
        latent_noise=latent_noise,
        fixed_flow=objective.fixed_flow,
        with_jacobian=wording.is_literal,
        shard=objective.shard,
    )
    routed = _router(objective, model, multipliers)
    owned, names, here = None, tuple(labels.presence), objective.shard
    if objective.owners is not None and here is not None:
        batch = batch.encoded(model.flow)
        owned = _owned(objective, model, batch, observations=observations, labels=labels, noise=noise, route=routed)
        labels = objective.owners.shared(labels)
    if here is not None:
        noise = here.noise(noise, {name: may_have(kappa, wording) for name, kappa in labels.presence.items()})
        observations, labels = observations.take(here.positions(observations.T.device)), here.labels(labels)
    if objective.terms:  # they share the z that is encoded here
        batch = batch.encoded(model.flow)
    taking_part = {name: model.find(name) for name in labels.presence}
    routing = routed(taking_part, observations, labels, characteristics=batch.characteristics, noise=noise)
    evaluated = objective.evaluator(model.flow, batch, routing, wording=wording, emphasis=objective.emphasis)
    capacity = _capacity(evaluated, [name for route in routing.routes for name in route.rectangle.names])
    if owned is not None:
        capacity = _with_owned(capacity, owned, names)
    if not objective.terms:
        return capacity
    kappa = dict(zip(observations.knowledge, presence(observations), strict=True))
    z, characteristics = batch.encoded(model.flow).z, observations.characteristics
    values = means(objective.terms, TermBatch(observations.T, z, capacity.log_prob_T, kappa, characteristics, model))
    return replace(capacity, value=capacity.value + weighted(objective.terms, values), terms=values)


def _capacity(terms: Terms, names: Sequence[str]) -> Capacity:
    """The terms with their sums by name, and as means."""
    sums = dict(zip(names, terms.sums.cpu(), strict=True))
    inconsistency, conditional = means_of(sums)
    return Capacity(
        value=terms.value,
        log_prob_T=terms.log_prob_T,
        log_capacity=terms.log_capacity,
        inconsistency=inconsistency,
        conditional=conditional,
        prior_weight=terms.prior_weight,
        sums=sums,
    )


def _router(objective: Objective, model: TzK, multipliers: Mapping[str, float] | None) -> Callable[..., Routing]:
    """`route` with all that does not depend on the batch."""
    return partial(
        route,
        multipliers=multipliers,
        wording=objective.wording,
        stacks=objective.stacks,
        sizes=objective.sizes,
        not_vmappable=model.not_vmappable,
        kl_weight=1.0 if objective.wording.is_literal else objective.kl_weight,
    )


def _owned(objective: Objective, model: TzK, batch: Encodable, **known: Any) -> OwnedTerms:
    """What the knowledge types of this process add, see `owned_terms`."""
    assert objective.owners is not None and objective.shard is not None
    how: dict[str, Any] = {"wording": objective.wording, "emphasis": objective.emphasis, "shard": objective.shard}
    return owned_terms(objective.owners, model, batch, **how, **known)


def _with_owned(capacity: Capacity, owned: OwnedTerms, names: Sequence[str]) -> Capacity:
    """What a shard has, with what the knowledge types of this process add.

    Args:
        names: of all knowledge types of the batch, of which others have zeros.
    """
    size, nothing = len(capacity.log_capacity), torch.zeros(4, dtype=capacity.value.dtype)
    return replace(
        capacity,
        value=capacity.value + owned.value / size,
        prior_weight=capacity.prior_weight + owned.prior_weight / size,
        sums={name: owned.sums.get(name, capacity.sums.get(name, nothing)) for name in names},
        owned=owned.log_capacity,
    )


def means_of(sums: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By knowledge type, both sums over their numbers of samples.

    Types without any are left out.
    """
    if not sums:
        return {}, {}
    table = torch.stack(list(sums.values()))  # at once: of a hundred types, each by itself takes milliseconds
    gap, ratio = (
        {
            name: mean
            for name, mean, count in zip(sums, (total / counts).unbind(), counts.tolist(), strict=True)
            if count
        }
        for total, counts in ((table[:, 0], table[:, 1]), (table[:, 2], table[:, 3]))
    )
    return gap, ratio
