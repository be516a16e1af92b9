"""Rows of the likelihood table: prior, knowledge, means and mixtures, in the three units."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tzk_core.evaluation.partitions import Fit
from tzk_core.units import bits_per_image


@dataclass(frozen=True)
class Held:
    """One split of one data set, as it is evaluated.

    T: (n, *shape), dequantised. presence: (n, knowledge) in {0, 1, nan}, columns named `knowledge`.
    characteristics: by knowledge, (n, c), nan where not observed. levels, original_dims: see `data.protocol`.
    share: of the training population, which p(κ) was fitted on.
    draws: how many dequantisations are evaluated, the first of which is T; `redraw(k)` gives the k-th.
    """

    dataset: str
    split: str
    T: Tensor
    presence: Tensor
    knowledge: tuple[str, ...]
    characteristics: Mapping[str, Tensor]
    levels: int | None
    original_dims: int | None
    share: float
    draws: int = 1
    redraw: Callable[[int], Tensor] | None = None

    def drawn(self) -> Iterator[Tensor]:
        """T as dequantised once and again, `draws` times."""
        yield self.T
        for number in range(1, self.draws):
            assert self.redraw is not None
            yield self.redraw(number)

    def presence_of(self, names: Iterable[str]) -> Tensor:
        """Their columns of `presence`, (n, names)."""
        return self.presence[:, [self.knowledge.index(name) for name in names]]

    def rows(self, name: str) -> Tensor:
        """Indices, (n,), of the samples in which the knowledge is present."""
        return torch.nonzero(self.presence[:, self.knowledge.index(name)] == 1).squeeze(1)


@dataclass(frozen=True)
class Scores:
    """Log-densities of one held-out split, in nats.

    Of several dequantisations T_1, ..., T_k of one sample they are log (1/k) Σ p(T_i), which in the mean is a lower
    bound on the log-probability of the grey levels, as log p(T_1) is, and a tighter one (Burda et al. 2016; Ho et al.
    2019, Section 3.1).

    prior: (n,), log p(T). given: by knowledge type, (m,), log p(T given κ=1) of its samples `rows[name]`.
    decided: by knowledge type whose C has finitely many values, (m,), which of its `support` is the most probable given
        T by Bayes. `given` is exact for these, for others a bound of `importance_samples`.
    presence: by knowledge type, (m,), log p(κ=1 given T) by its discriminator; of several dequantisations each weighs
        as its p(T), which gives p(κ=1 given the grey levels).
    """

    held: Held
    prior: Tensor
    rows: Mapping[str, Tensor]
    given: Mapping[str, Tensor]
    importance_samples: int
    decided: Mapping[str, Tensor] = field(default_factory=dict)
    presence: Mapping[str, Tensor] = field(default_factory=dict)

    def own(self, name: str) -> Tensor:
        """log p(T given κ=1) of the samples in which the knowledge is present, (m,)."""
        present = torch.isin(self.rows[name], self.held.rows(name))
        return self.given[name][present]


def row(held: Held, name: str, kind: str, log_prob: Tensor, **more: Any) -> dict[str, Any]:
    """One row of results.json from log-densities, (n,), in nats. The standard error is of bits per image."""
    dims = held.T[0].numel()
    bits = bits_per_image(log_prob.double(), dims, held.levels)
    error = bits.std().item() / math.sqrt(len(bits)) if len(bits) > 1 else None
    return make_row(held, name, kind, bits.mean().item(), len(bits), error, **more)


def make_row(
    held: Held, name: str, kind: str, bits: float, count: int | None, error: float | None, **more: Any
) -> dict[str, Any]:
    """One row of results.json from bits per image."""
    return {
        "name": name,
        "kind": kind,
        "knowledge": None,
        "dataset": held.dataset,
        "split": held.split,
        "count": count,
        "bits_per_image": bits,
        "bits_per_dim": bits / held.T[0].numel(),
        "bits_per_pixel": bits / held.original_dims if held.original_dims else None,
        "estimate": "exact" if held.draws == 1 else f"bound of {held.draws} dequantisations",
        "importance_samples": None,
        "standard_error": error,
        "inconsistency_nats": None,
        **more,
    }


def prior_row(scores: Scores) -> dict[str, Any]:
    return row(scores.held, "prior", "prior", scores.prior)


def knowledge_row(scores: Scores, name: str, inconsistency: float | None) -> dict[str, Any]:
    """log p(T given κ=1) on the samples of the data set in which the knowledge is present."""
    return row(
        scores.held,
        name,
        "knowledge",
        scores.own(name),
        knowledge=name,
        inconsistency_nats=inconsistency,
        **_estimate(scores, [name]),
    )


def mean_row(scores: Scores, name: str, members: Sequence[str]) -> dict[str, Any]:
    """The mean over knowledge types of each one's mean on its own samples: the paper's "digit conditional".

    The standard error is that of independent means: of their average.
    """
    rows = [row(scores.held, member, "knowledge", scores.own(member)) for member in members]
    error = math.sqrt(sum((each["standard_error"] or 0.0) ** 2 for each in rows)) / len(rows)
    bits = sum(each["bits_per_image"] for each in rows) / len(rows)
    count = sum(each["count"] for each in rows)
    label = ", ".join(members) if len(members) < 3 else f"{members[0]} to {members[-1]}"
    return make_row(scores.held, name, "knowledge", bits, count, error, knowledge=label, **_estimate(scores, members))


def mixture_log_prob(scores: Scores, log_weights: Mapping[str, float]) -> Tensor:
    """log Σ_k w_k p(T given κ^k=1), (n,), over a partition whose members were evaluated on every sample."""
    weighted = [scores.given[name] + weight for name, weight in log_weights.items()]
    return torch.logsumexp(torch.stack(weighted), 0)


def mixture_row(scores: Scores, name: str, log_weights: Mapping[str, float]) -> dict[str, Any]:
    """The fair unconditional number of a model with knowledge: the mixture over a declared partition, on the samples
    that are known to be in it."""
    log_prob = mixture_log_prob(scores, log_weights)[decided(scores.held, log_weights)]
    label = ", ".join(log_weights)
    return row(scores.held, name, "mixture", log_prob, knowledge=label, **_estimate(scores, log_weights))


def covers(held: Held, members: Iterable[str]) -> bool:
    """Whether these knowledge types partition the data set (`partitions.Fit`)."""
    return Fit.of(held.presence_of(members)).whole


def decided(held: Held, members: Iterable[str]) -> Tensor:
    """Where it is known which of these knowledge types a sample has, (n,) bool."""
    return Fit.of(held.presence_of(members)).decided


def _estimate(scores: Scores, names: Iterable[str]) -> dict[str, Any]:
    """How the integral over C of these knowledge types was taken."""
    draws = f", {scores.held.draws} dequantisations" if scores.held.draws > 1 else ""
    if scores.decided.keys() >= set(names):
        return {"estimate": "exact sum over C" + draws}
    return {"estimate": "importance-weighted bound" + draws, "importance_samples": scores.importance_samples}
