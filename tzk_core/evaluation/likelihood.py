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


@dataclass(frozen=True, kw_only=True)
class EvaluationSplit:
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

    def dequantisations(self) -> Iterator[Tensor]:
        """T, (n, *shape), dequantised `draws` times, with other noise every time."""
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
    one_draw: the scores of T_1 alone, where there are several dequantisations.
    """

    held: EvaluationSplit
    prior: Tensor
    rows: Mapping[str, Tensor]
    given: Mapping[str, Tensor]
    importance_samples: int
    decided: Mapping[str, Tensor] = field(default_factory=dict)
    presence: Mapping[str, Tensor] = field(default_factory=dict)
    one_draw: Scores | None = None

    def log_prob_where_present(self, name: str) -> Tensor:
        """log p(T given κ=1) of the samples in which the knowledge is present, (m,)."""
        present = torch.isin(self.rows[name], self.held.rows(name))
        return self.given[name][present]


def row(held: EvaluationSplit, name: str, kind: str, log_prob: Tensor, **more: Any) -> dict[str, Any]:
    """One row of results.json from log-densities, (n,), in nats. The standard error is of bits per image."""
    bits = bits_per_image(log_prob.double(), held.T[0].numel(), held.levels)
    return make_row(held, name, kind, bits.mean().item(), len(bits), standard_error(bits), **more)


def make_row(
    held: EvaluationSplit, name: str, kind: str, bits: float, count: int | None, error: float | None, **more: Any
) -> dict[str, Any]:
    """One row of results.json from bits per image; what they are an estimate of is "exact" unless said."""
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
        "one_draw_bits_per_dim": None,
        "estimate": "exact",
        "importance_samples": None,
        "standard_error": error,
        "gain_bits_per_dim": None,
        "gain_standard_error": None,
        "inconsistency_nats": None,
        **more,
    }


def standard_error(values: Tensor) -> float | None:
    """That of the mean of (n,) independent values; none of a single one."""
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None


def gain(held: EvaluationSplit, bits: Tensor, prior: Tensor) -> dict[str, float | None]:
    """By how many bits per dim less than the `prior` a row needs, with the standard error of the paired difference.

    Both are bits per image, (n,), of the same samples.
    """
    difference = (prior - bits).double() / held.T[0].numel()
    return {"gain_bits_per_dim": difference.mean().item(), "gain_standard_error": standard_error(difference)}


def prior_row(scores: Scores) -> dict[str, Any]:
    """log p(T): of grey levels the density of one noisy T, or the mean of several, and a bound on what they cost."""
    held, estimate = scores.held, "exact"
    if held.levels is not None:
        estimate = "one dequantisation (one draw)" if held.draws == 1 else f"bound of {held.draws} dequantisations"
    return row(held, "prior", "prior", scores.prior, estimate=estimate, **_one_draw(scores, lambda each: each.prior))


def knowledge_row(scores: Scores, name: str, inconsistency: float | None) -> dict[str, Any]:
    """log p(T given κ=1) on the samples of the data set in which the knowledge is present."""
    held, own = scores.held, scores.log_prob_where_present(name)
    return row(
        held,
        name,
        "knowledge",
        own,
        knowledge=name,
        inconsistency_nats=inconsistency,
        **_gain(held, own, scores.prior[held.rows(name)]),
        **_one_draw(scores, lambda each: each.log_prob_where_present(name)),
        **_estimate(scores, [name]),
    )


def mean_row(scores: Scores, name: str, members: Sequence[str]) -> dict[str, Any]:
    """The mean over knowledge types of each one's mean on its own samples: the paper's "digit conditional".

    The label is known: the mixture over the same types sums it out. Standard errors are those of independent means: of
    their average, and unknown where a mean is of one sample.
    """
    rows = [knowledge_row(scores, member, None) for member in members]

    def average(key: str) -> float | None:
        values = [each[key] for each in rows]
        return None if None in values else sum(values) / len(values)

    def error(key: str) -> float | None:
        values = [each[key] for each in rows]
        return None if None in values else math.sqrt(sum(value**2 for value in values)) / len(values)

    bits = sum(each["bits_per_image"] for each in rows) / len(rows)
    count = sum(each["count"] for each in rows)
    label = ", ".join(members) if len(members) < 3 else f"{members[0]} to {members[-1]}"
    more: dict[str, Any] = {key: average(key) for key in ("gain_bits_per_dim", "one_draw_bits_per_dim")}
    more |= {"gain_standard_error": error("gain_standard_error"), "knowledge": label, **_estimate(scores, members)}
    return make_row(scores.held, name, "knowledge", bits, count, error("standard_error"), **more)


def mixture_log_prob(scores: Scores, log_weights: Mapping[str, float]) -> Tensor:
    """log Σ_k w_k p(T given κ^k=1), (n,), over a partition whose members were evaluated on every sample."""
    weighted = [scores.given[name] + weight for name, weight in log_weights.items()]
    return torch.logsumexp(torch.stack(weighted), 0)


def mixture_row(scores: Scores, name: str, log_weights: Mapping[str, float]) -> dict[str, Any]:
    """The fair unconditional number of a model with knowledge: the mixture over a declared partition, on the samples
    that are known to be in it."""
    rows = decided(scores.held, log_weights)

    def mixture(each: Scores) -> Tensor:
        return mixture_log_prob(each, log_weights)[rows]

    log_prob = mixture(scores)
    return row(
        scores.held,
        name,
        "mixture",
        log_prob,
        knowledge=", ".join(log_weights),
        **_gain(scores.held, log_prob, scores.prior[rows]),
        **_one_draw(scores, mixture),
        **_estimate(scores, log_weights),
    )


def covers(held: EvaluationSplit, members: Iterable[str]) -> bool:
    """Whether these knowledge types partition the data set (`partitions.Fit`)."""
    return Fit.of(held.presence_of(members)).whole


def decided(held: EvaluationSplit, members: Iterable[str]) -> Tensor:
    """Where it is known which of these knowledge types a sample has, (n,) bool."""
    return Fit.of(held.presence_of(members)).decided


def _gain(held: EvaluationSplit, log_prob: Tensor, prior: Tensor) -> dict[str, float | None]:
    """`gain` from log-densities, (n,), in nats."""
    dims = held.T[0].numel()
    return gain(held, *(bits_per_image(each.double(), dims, held.levels) for each in (log_prob, prior)))


def _one_draw(scores: Scores, log_prob: Callable[[Scores], Tensor]) -> dict[str, float | None]:
    """What a row would be by its first dequantisation alone, in bits per dim, where there are several."""
    if scores.one_draw is None:
        return {"one_draw_bits_per_dim": None}
    dims = scores.held.T[0].numel()
    bits = bits_per_image(log_prob(scores.one_draw).double(), dims, scores.held.levels)
    return {"one_draw_bits_per_dim": bits.mean().item() / dims}


def _estimate(scores: Scores, names: Iterable[str]) -> dict[str, Any]:
    """How the integral over C of these knowledge types was taken, and that over the noise in grey levels."""
    held, draws = scores.held, ""
    if held.levels is not None:
        draws = ", one draw" if held.draws == 1 else f", {held.draws} dequantisations"
    if scores.decided.keys() >= set(names):
        return {"estimate": "exact sum over C" + draws}
    return {"estimate": "importance-weighted bound" + draws, "importance_samples": scores.importance_samples}
