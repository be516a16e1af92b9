"""Which knowledge types processes divide among them, and who owns each."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tzk_core.knowledge import Knowledge
from tzk_core.objective.owned import owners_of
from tzk_core.objective.routing import presence
from tzk_core.observations import Observations
from tzk_core.training.owned_modules import trained_of
from tzk_core.training.settings import Settings

TABLES_FROM = 1000
"""From so many knowledge types in tables on they are divided, by default (docs/distributed.md)."""


def owners(
    observations: Observations,
    processes: int,
    *,
    settings: Settings,
    tabled: Collection[str],
    modules: Mapping[str, Knowledge],
) -> dict[str, int]:
    """The owners of the knowledge types that are divided; none where nothing is.

    Gradients of types in no table are summed whole where they are not divided. Otherwise z of every sample may go to an
    owner, and its gradient back. What has fewer numbers is chosen by default. Of types in tables, those rows alone are
    summed that a batch reaches, and memory decides.

    Args:
        observations: a batch of the training, the same in all processes.
        settings: of the training: `owners_from`, and `owners`, which asks for division by itself.
        tabled: the knowledge types in tables.
        modules: those in none that can be divided.
    """
    numbers = {name: sum(parameter.numel() for parameter in trained_of(kind)) for name, kind in modules.items()}
    owners_from, given = settings.owners_from, settings.owners
    if owners_from == "auto" and not given:
        rows = 2 * len(observations) * (observations.T[0].numel() + 1)
        numbers = numbers if sum(numbers.values()) > rows else {}
        tabled = tabled if len(tabled) >= TABLES_FROM else ()
    elif not owners_from or owners_from != "auto" and len(tabled) + len(numbers) < owners_from:
        return {}
    costs = _costs(observations, numbers)
    of = owners_of([*tabled, *numbers], observations.exclusive, processes, costs=costs, given=given)
    whole = all(set(group) <= of.keys() or of.keys().isdisjoint(group) for group in observations.exclusive)
    return of if whole else {}


def _costs(observations: Observations, numbers: Mapping[str, int]) -> dict[str, float]:
    """Products of parameters and samples, about.

    A discriminator, a quarter of a type, is evaluated at all samples, and the rest where they may have the type.
    """
    rows = dict(zip(observations.knowledge, (presence(observations) != 0).sum(1).tolist(), strict=True))
    return {name: count * (0.25 * len(observations) + rows.get(name, 0)) for name, count in numbers.items()}
