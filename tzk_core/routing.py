"""Who is evaluated at which samples: all that the objective has to know of a batch beside z, settled before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.exclusive import Undecided
from tzk_core.knowledge import Knowledge
from tzk_core.observations import Observations
from tzk_core.stacking import Rectangle, rectangles

Noise = Callable[[str, int], Tensor]
"""Standard Gaussian noise, (n, c), for the characteristics of the named knowledge type."""


@dataclass(frozen=True)
class Routed:
    """A rectangle of k knowledge types by m samples, with what was observed there.

    presence: (k, batch), κ in {0, 1, nan}. noise: (k, m, c), zeros where there is padding. observed: (k, m, c), C as
    observed, or as T was drawn from it, nan where it was neither; None if it never was. multipliers: (k, 1).
    undecided: by member of a group with undecided samples, the group's position in `Routing.groups`.
    """

    rectangle: Rectangle
    presence: Tensor
    noise: Tensor
    observed: Tensor | None
    multipliers: Tensor
    undecided: dict[str, int]


@dataclass(frozen=True)
class Routing:
    """The routes of one batch. The number of samples of a rectangle is the only shape in it that differs from batch to
    batch once `sizes` keeps knowledge types together, and there is no branch on a value after it: what follows can be
    one graph.

    groups: exclusive knowledge types, where some sample is undecided.
    """

    routes: tuple[Routed, ...]
    groups: tuple[Undecided, ...]


def route(
    kinds: Mapping[str, Knowledge],
    observations: Observations,
    presence_of: Mapping[str, Tensor],
    characteristics: Mapping[str, Tensor],
    noise: Noise,
    multipliers: Mapping[str, float] | None,
    skip: bool,
    summed: bool,
    sizes: dict[str, int] | None = None,
) -> Routing:
    """Routes samples to the knowledge types in them. `skip`: where nobody says whether it is, they do not go there;
    `summed`: exclusive groups are summed over. `sizes` as of `rectangles`."""
    T = observations.T
    groups = [Undecided(group, presence_of) for group in observations.exclusive] if summed else []
    groups = [group for group in groups if group.rows.any()]
    group_of = {name: number for number, group in enumerate(groups) for name in group.members}
    possible = {
        name: torch.nonzero(row == 1 if skip else row != 0).squeeze(1) for name, row in presence_of.items()
    }
    routes = []
    for rectangle in rectangles(kinds, possible, sizes):
        names = rectangle.names
        routes.append(
            Routed(
                rectangle,
                torch.stack([presence_of[name] for name in names]),
                _padded(noise, rectangle).to(T),
                _observed(characteristics, rectangle, T),
                T.new_tensor([(multipliers or {}).get(name, 0.0) for name in names])[:, None],
                {name: group_of[name] for name in names if name in group_of},
            )
        )
    return Routing(tuple(routes), tuple(groups))


def presence(observations: Observations) -> dict[str, Tensor]:
    """By knowledge, κ, (batch,) in {0, 1, nan}; an observed C says that κ = 1 where nobody else does."""
    rows = observations.presence.T.clone()
    for row, name in zip(rows, observations.knowledge, strict=True):
        if name in observations.characteristics:
            row[row.isnan() & ~observations.characteristics[name].isnan().any(1)] = 1.0
    return dict(zip(observations.knowledge, rows, strict=True))


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
