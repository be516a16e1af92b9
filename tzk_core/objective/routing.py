"""The routes of a batch: the samples at which each knowledge type is evaluated.

They are settled before the objective, which then has no branch on a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.stacking import MODULES, Rectangle, Stacks, rectangles
from tzk_core.objective.exclusive import ExclusiveGroup
from tzk_core.objective.negatives import Absences
from tzk_core.objective.wording import Wording
from tzk_core.observations import Observations

Noise = Callable[[str, int], Tensor]
"""Standard Gaussian noise, (n, c), for the characteristics of the named knowledge type."""


class BatchLabels(NamedTuple):
    """The labels of a batch, by knowledge type.

    presence: (batch,), κ in {0, 1, nan}.
    weights: (batch,), of log p(κ=0 given z), as of `Absences`.
    """

    presence: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Route:
    """A rectangle of k knowledge types by m samples, with the observations there.

    weights: (k, r), of log p(κ=0 given z) at the r samples `at`.
    at: (r,), positions in the batch; None for all of it.
    known: (k, m), where κ was observed to be 1.
    noise: (k, m, c), zeros where there is padding.
    observed: (k, m, c), C as observed, or as T was sampled from it, nan where it was neither; None if it never was.
    multipliers: (k, 1).
    groups: by member of an exclusive group with undecided samples, the position of the group in `Routing.groups`.
    """

    rectangle: Rectangle
    weights: Tensor
    at: Tensor | None
    known: Tensor
    noise: Tensor
    observed: Tensor | None
    multipliers: Tensor
    groups: Mapping[str, int]


@dataclass(frozen=True)
class Routing:
    """The routes of one batch.

    With `sizes`, and all absences, the number of samples of a rectangle is the only shape in it that differs from
    batch to batch. There is no branch on a value after it, so that what follows can be one graph.

    groups: exclusive knowledge types, where some sample is undecided.
    kl_weight: a scalar, the weight of log p(C) - log p(C given z) where C was filled in.
    """

    routes: tuple[Route, ...]
    groups: tuple[ExclusiveGroup, ...]
    kl_weight: Tensor


def route(
    knowledge: Mapping[str, Knowledge],
    observations: Observations,
    labels: BatchLabels,
    *,
    characteristics: Mapping[str, Tensor],
    noise: Noise,
    wording: Wording,
    multipliers: Mapping[str, float] | None = None,
    stacks: Stacks = MODULES,
    sizes: dict[str, int] | None = None,
    not_vmappable: set[type[Knowledge]] | None = None,
    kl_weight: float = 1.0,
) -> Routing:
    """Route samples to the knowledge types that they have, or may have.

    Args:
        knowledge: by name, all that take part, as `labels` has them.
        characteristics: by knowledge type, C as observed, or as T was sampled from it; (batch, c), nan elsewhere.
        noise: the noise that fills in C.
        multipliers: λ by knowledge type; 0 for those that are not in it.
        stacks, sizes, not_vmappable: as of `stacking.rectangles`; with `sizes`, absences are evaluated at the whole
            batch.
        kl_weight: see `Routing`.
    """
    groups = _undecided_groups(observations.exclusive, labels.presence) if wording.sums_exclusive else ()
    group_of = {name: number for number, group in enumerate(groups) for name in group.members}
    T = observations.T
    possible = _rows(labels.presence, lambda presence: may_have(presence, wording))
    routes = []
    for rectangle in rectangles(knowledge, possible, stacks=stacks, sizes=sizes, not_vmappable=not_vmappable):
        names = rectangle.names
        at, weights = _absent(labels, names, T, whole=sizes is not None)
        known = torch.stack([labels.presence[name] for name in names]).gather(1, rectangle.rows) == 1
        factors = T.new_tensor([(multipliers or {}).get(name, 0.0) for name in names])[:, None]
        C_noise, C = _padded(noise, rectangle).to(T), _observed(characteristics, rectangle, T)
        members = {name: group_of[name] for name in names if name in group_of}
        routes.append(Route(rectangle, weights, at, known, C_noise, C, factors, members))
    return Routing(tuple(routes), groups, T.new_tensor(kl_weight))


def may_have(presence: Tensor, wording: Wording) -> Tensor:
    """Where samples have knowledge, or may have it and so take part."""
    return presence == 1 if wording.skips_unlabelled else presence != 0


def batch_labels(observations: Observations, absences: Absences) -> BatchLabels:
    """The labels of a batch, of all knowledge types that take part.

    One that no sample may have, and whose absence has no weight, takes no part.
    """
    table = presence(observations)
    weights = absences(table)
    part = torch.nonzero(((table != 0) | (weights != 0)).any(1)).squeeze(1)
    names = [observations.knowledge[row] for row in part.tolist()]
    return BatchLabels(*(dict(zip(names, rows[part], strict=True)) for rows in (table, weights)))


def presence(observations: Observations) -> Tensor:
    """κ of a batch, (knowledge, batch) in {0, 1, nan}.

    An observed C shows that κ = 1 where κ is missing.
    """
    table = observations.presence.T.clone()
    for name, C in observations.characteristics.items():
        if name in observations.knowledge:
            row = table[observations.knowledge.index(name)]
            row[row.isnan() & ~C.isnan().any(1)] = 1.0
    return table


def _undecided_groups(
    exclusive: tuple[tuple[str, ...], ...], presence_of: Mapping[str, Tensor]
) -> tuple[ExclusiveGroup, ...]:
    """The groups of exclusive knowledge types in which some sample is undecided."""
    members = [[name for name in group if name in presence_of] for group in exclusive]
    groups = [ExclusiveGroup(group, presence_of) for group in members if group]
    return tuple(group for group in groups if group.undecided.any())


def _absent(labels: BatchLabels, names: Sequence[str], T: Tensor, *, whole: bool) -> tuple[Tensor | None, Tensor]:
    """The samples, (r,), at which absence is evaluated, and its weights, (k, r).

    None stands for all of the batch: if it is to be `whole`, or half of it or more has weights.
    """
    weights = torch.stack([labels.weights[name] for name in names]).to(T)
    if whole:
        return None, weights
    at = torch.nonzero((weights != 0).any(0)).squeeze(1)
    return (at, weights[:, at]) if 2 * len(at) < weights.shape[1] else (None, weights)


def _rows(presence_of: Mapping[str, Tensor], where: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """By knowledge type, the positions in the batch, (n,), where its presence satisfies a condition."""
    if not presence_of:
        return {}
    chosen = where(torch.stack(list(presence_of.values())))
    rows = torch.nonzero(chosen)[:, 1].split(chosen.sum(1).tolist())
    return dict(zip(presence_of, rows, strict=True))


def _padded(noise: Noise, rectangle: Rectangle) -> Tensor:
    """The noise of a rectangle, (k, m, c), zeros where there is padding."""
    counts = rectangle.real.sum(1).tolist()
    samples = [noise(name, count) for name, count in zip(rectangle.names, counts, strict=True)]
    padded = torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)
    return torch.nn.functional.pad(padded, (0, 0, 0, rectangle.rows.shape[1] - padded.shape[1]))


def _observed(characteristics: Mapping[str, Tensor], rectangle: Rectangle, T: Tensor) -> Tensor | None:
    """C of a rectangle, (k, m, c), nan where missing; None if all is."""
    if not any(name in characteristics for name in rectangle.names):
        return None
    missing = torch.full((len(T), rectangle.characteristics), torch.nan)
    columns = (characteristics.get(name, missing).to(T) for name in rectangle.names)
    return torch.stack([C.index_select(0, rows) for C, rows in zip(columns, rectangle.rows, strict=True)])


def idle(observations: Observations, wording: Wording) -> list[str]:
    """The knowledge types that no sample of a batch that takes part may have."""
    table = presence(observations)
    reached = (table == 1 if wording.unlabelled == "skip" else table != 0).any(1).tolist()
    return [name for name, any_sample in zip(observations.knowledge, reached, strict=True) if not any_sample]
