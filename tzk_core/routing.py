"""Who is evaluated at which samples: all that the objective has to know of a batch beside z, settled before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.absence import Absences
from tzk_core.exclusive import Undecided
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.stacking import MODULES, Rectangle, Stacks, rectangles
from tzk_core.observations import Observations

Noise = Callable[[str, int], Tensor]
"""Standard Gaussian noise, (n, c), for the characteristics of the named knowledge type."""


@dataclass(frozen=True)
class Told:
    """What is told of knowledge in a batch, by the names of all that take part; (batch,) each.

    presence: κ in {0, 1, nan}. weights: of log p(κ=0 given z), as of `Absences`.
    """

    presence: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Routed:
    """A rectangle of k knowledge types by m samples, with what was observed there.

    weights: (k, r), of log p(κ=0 given z) at the r samples `at`, positions in the batch; None for all of it.
    known: (k, m), where κ was observed to be 1. noise: (k, m, c), zeros where there is padding. observed: (k, m, c), C
    as observed, or as T was drawn from it, nan where it was neither; None if it never was. multipliers: (k, 1).
    undecided: by member of a group with undecided samples, the group's position in `Routing.groups`.
    """

    rectangle: Rectangle
    weights: Tensor
    at: Tensor | None
    known: Tensor
    noise: Tensor
    observed: Tensor | None
    multipliers: Tensor
    undecided: dict[str, int]


@dataclass(frozen=True)
class Routing:
    """The routes of one batch. With `sizes`, and all absences, the number of samples of a rectangle is the only shape
    in it that differs from batch to batch, and there is no branch on a value after it: what follows can be one graph.

    groups: exclusive knowledge types, where some sample is undecided. kl_weight: a scalar, that of log p(C) less
    log p(C given z) where C was filled in.
    """

    routes: tuple[Routed, ...]
    groups: tuple[Undecided, ...]
    kl_weight: Tensor


def route(
    kinds: Mapping[str, Knowledge],
    observations: Observations,
    told: Told,
    characteristics: Mapping[str, Tensor],
    noise: Noise,
    multipliers: Mapping[str, float] | None,
    skip: bool,
    summed: bool,
    stacks: Stacks = MODULES,
    sizes: dict[str, int] | None = None,
    kl_weight: float = 1.0,
) -> Routing:
    """Routes samples to the knowledge types in them. `skip`: where nobody says whether it is, they do not go there;
    `summed`: exclusive groups are summed over. `stacks` and `sizes` as of `rectangles`; with `sizes` absences are
    evaluated at the whole batch."""
    T, presence_of = observations.T, told.presence
    members = [[name for name in group if name in presence_of] for group in observations.exclusive if summed]
    groups = [Undecided(group, presence_of) for group in members if group]
    groups = [group for group in groups if group.rows.any()]
    group_of = {name: number for number, group in enumerate(groups) for name in group.members}
    possible = _rows(presence_of, lambda presence: presence == 1 if skip else presence != 0)
    routes = []
    for rectangle in rectangles(kinds, possible, stacks, sizes):
        names = rectangle.names
        weights = torch.stack([told.weights[name] for name in names]).to(T)
        at = _few(weights) if sizes is None else None
        routes.append(
            Routed(
                rectangle,
                weights if at is None else weights[:, at],
                at,
                torch.stack([presence_of[name] for name in names]).gather(1, rectangle.rows) == 1,
                _padded(noise, rectangle).to(T),
                _observed(characteristics, rectangle, T),
                T.new_tensor([(multipliers or {}).get(name, 0.0) for name in names])[:, None],
                {name: group_of[name] for name in names if name in group_of},
            )
        )
    return Routing(tuple(routes), tuple(groups), T.new_tensor(kl_weight))


def told_of(observations: Observations, absences: Absences) -> Told:
    """What the observations tell; a knowledge type that no sample may have and whose absence has no weight takes no
    part."""
    table = presence(observations)
    weights = absences(table)
    part = torch.nonzero(((table != 0) | (weights != 0)).any(1)).squeeze(1)
    names = [observations.knowledge[row] for row in part.tolist()]
    return Told(*(dict(zip(names, each[part], strict=True)) for each in (table, weights)))


def presence(observations: Observations) -> Tensor:
    """κ, (knowledge, batch) in {0, 1, nan}; an observed C says that κ = 1 where nobody else does."""
    table = observations.presence.T.clone()
    for name, C in observations.characteristics.items():
        if name in observations.knowledge:
            row = table[observations.knowledge.index(name)]
            row[row.isnan() & ~C.isnan().any(1)] = 1.0
    return table


def _few(weights: Tensor) -> Tensor | None:
    """The samples, (r,), of which any absence has a weight, (k, batch); None for half of the batch or more: it is then
    evaluated as a whole."""
    at = torch.nonzero((weights != 0).any(0)).squeeze(1)
    return at if 2 * len(at) < weights.shape[1] else None


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
    padded = torch.nn.utils.rnn.pad_sequence(drawn, batch_first=True)
    return torch.nn.functional.pad(padded, (0, 0, 0, rectangle.rows.shape[1] - padded.shape[1]))


def _observed(given: Mapping[str, Tensor], rectangle: Rectangle, T: Tensor) -> Tensor | None:
    if not any(name in given for name in rectangle.names):
        return None
    missing = torch.full((len(T), rectangle.characteristics), torch.nan)
    columns = (given.get(name, missing).to(T) for name in rectangle.names)
    return torch.stack([each.index_select(0, rows) for each, rows in zip(columns, rectangle.rows, strict=True)])
