"""Terms that are added to Eq. 5, with a weight.

A term is a value of every sample, logged by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.plugins import ObjectiveTerm, registry
from tzk_core.plugins.calling import call_part
from tzk_core.settings import TermTable


@dataclass(frozen=True)
class TermBatch:
    """A batch as a term sees it.

    A term MUST NOT change any of it, nor the parameters of the model.

    T: (batch, *shape), as observed, nan where it is missing.
    z: (batch, *latent_shape), of T, or as it was sampled where T is missing; its gradient reaches the shared flow.
    log_prob_T: (batch,), in nats, with its gradient, nan where T is missing.
    presence: by knowledge type of the data, κ, (batch,) in {0, 1, nan}, nan where it is missing.
    characteristics: by knowledge type, C as observed, (batch, c), nan where it is missing.
    model: its knowledge types are functions of z, as `discriminate(model.find(name), z)`; gradients reach them too.
    """

    T: Tensor
    z: Tensor
    log_prob_T: Tensor
    presence: Mapping[str, Tensor]
    characteristics: Mapping[str, Tensor]
    model: TzK


class Term(Protocol):
    """A term of the objective.

    It is an object of what a plugin offers, made with the arguments of its table.

    It returns a finite value of every sample, (batch,), in nats, to be maximised: a penalty is negative. It MUST be a
    function of the batch alone: without state, random numbers of its own, or influence of samples on one another.
    """

    def __call__(self, batch: TermBatch) -> Tensor: ...


class WeightedTerm(NamedTuple):
    """A term, what the log calls it, and what its values are multiplied by."""

    name: str
    weight: float
    term: Term


def terms_of(tables: Sequence[TermTable]) -> tuple[WeightedTerm, ...]:
    """The terms of these tables.

    Raises:
        TzkError: if no plugin offers one, or it does not take its arguments.
    """
    return tuple(
        WeightedTerm(table.title, table.weight, call_part(registry().find(ObjectiveTerm, table.type), table.arguments))
        for table in tables
    )


def means(terms: Sequence[WeightedTerm], batch: TermBatch) -> dict[str, Tensor]:
    """The mean of every term over the batch, by its name, without its weight.

    Raises:
        TzkError: for values of another shape, and for a term that changed what it saw.
    """
    seen = [batch.T, batch.z, batch.log_prob_T, *batch.presence.values(), *batch.characteristics.values()]
    versions = [tensor._version for tensor in seen]
    by_name: dict[str, Tensor] = {}
    for name, _, term in terms:
        values = term(batch)
        if not isinstance(values, Tensor) or values.shape != (len(batch.z),):
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise TzkError(
                f"the objective term {name!r} is expected to return a value a sample, ({len(batch.z)},); got {got}"
            )
        if [tensor._version for tensor in seen] != versions:
            raise TzkError(
                f"the objective term {name!r} changes the batch that it sees: expected a function of it, without "
                "in-place operations on it"
            )
        by_name[name] = values.mean()
    return by_name


def weighted(terms: Sequence[WeightedTerm], values: Mapping[str, Tensor]) -> Tensor:
    """Σ weight · value."""
    return torch.stack([weight * values[name] for name, weight, _ in terms]).sum()
