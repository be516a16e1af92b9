"""Rows of the likelihood table: prior, knowledge, means and mixtures, in the three units."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tzk_core.evaluation.partitions import Fit
from tzk_core.units import NATS_PER_BIT, bits_per_image


@dataclass(frozen=True, kw_only=True)
class EvaluationSplit:
    """One split of one data set, as it is evaluated.

    T: (n, *shape), dequantised.
    presence: (n, knowledge) in {0, 1, nan}, columns named `knowledge`.
    characteristics: by knowledge, (n, c), nan where not observed.
    levels, original_dims: see `data.protocol`.
    share: of the training population, which p(κ) was fitted on.
    draws: how many dequantisations are evaluated, the first of which is T.
    redraw: the k-th dequantisation.
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
        """Columns of `presence` by name, (n, names)."""
        return self.presence[:, [self.knowledge.index(name) for name in names]]

    def rows(self, name: str) -> Tensor:
        """Indices, (n,), of the samples in which the knowledge is present."""
        return torch.nonzero(self.presence[:, self.knowledge.index(name)] == 1).squeeze(1)


@dataclass(frozen=True)
class Scores:
    """Log-densities of one held-out split, in nats.

    Of several dequantisations T_1, ..., T_k of one sample they are log (1/k) Σ p(T_i). In the mean this is a lower
    bound on the log-probability of the grey levels, and a tighter one than log p(T_1) (Burda et al. 2016; Ho et al.
    2019, Section 3.1).

    prior: log p(T), (n,).
    rows: by knowledge type, the positions of its m samples.
    conditional: by knowledge type, log p(T given κ=1), (m,).
    decided: by knowledge type whose C has finitely many values, (m,), which of its `support` is the most probable given
        T by Bayes. `conditional` is exact for these, for others a bound of `importance_samples`.
    presence: by knowledge type, log p(κ=1 given T) by its discriminator, (m,). Several dequantisations are weighted by
        their p(T), which gives p(κ=1 given the grey levels).
    one_draw: the scores of T_1 alone, where there are several dequantisations.
    log_det_estimate: how the flow estimates log|det| (`SharedFlow.log_det_estimate`); "" where it is in closed form.
    """

    held_out: EvaluationSplit
    prior: Tensor
    rows: Mapping[str, Tensor]
    conditional: Mapping[str, Tensor]
    importance_samples: int
    decided: Mapping[str, Tensor] = field(default_factory=dict)
    presence: Mapping[str, Tensor] = field(default_factory=dict)
    one_draw: Scores | None = None
    log_det_estimate: str = ""

    def log_prob_where_present(self, name: str) -> Tensor:
        """log p(T given κ=1) of the samples in which the knowledge is present, (m,)."""
        present = torch.isin(self.rows[name], self.held_out.rows(name))
        return self.conditional[name][present]


def row(held_out: EvaluationSplit, log_prob: Tensor, *, name: str, row_type: str, **more: Any) -> dict[str, Any]:
    """One row of results.json from log-densities, (n,), in nats.

    The standard error is of bits per image.
    """
    bits = bits_per_image(log_prob.double(), held_out.T[0].numel(), held_out.levels)
    mean, error = bits.mean().item(), standard_error(bits)
    return make_row(held_out, mean, name=name, row_type=row_type, count=len(bits), error=error, **more)


def make_row(
    held_out: EvaluationSplit,
    bits: float,
    *,
    name: str,
    row_type: str,
    count: int | None,
    error: float | None,
    **more: Any,
) -> dict[str, Any]:
    """One row of results.json from bits per image.

    Real-valued data have "log_prob_nats", the mean of log p(T) in their own unit, and grey levels "bits_per_pixel"; the
    other is null.

    Args:
        row_type: the value of its "kind": "prior", "knowledge", "mixture" or "baseline".
        error: the standard error of the bits.
        more: other columns; "estimate" is "exact" by default.
    """
    real, pixels = held_out.levels is None, held_out.original_dims
    return {
        "name": name,
        "kind": row_type,
        "knowledge": None,
        "dataset": held_out.dataset,
        "split": held_out.split,
        "count": count,
        "bits_per_image": bits,
        "bits_per_dim": bits / held_out.T[0].numel(),
        "bits_per_pixel": bits / pixels if pixels and not real else None,
        "log_prob_nats": -bits * NATS_PER_BIT if real else None,
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
    """The standard error of the mean of (n,) independent values; None for a single one."""
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None


def gain(held_out: EvaluationSplit, bits: Tensor, prior: Tensor) -> dict[str, float | None]:
    """Bits per dim saved in comparison with the prior, and the standard error.

    That is of the paired difference: both are bits per image, (n,), of the same samples.
    """
    difference = (prior - bits).double() / held_out.T[0].numel()
    return {"gain_bits_per_dim": difference.mean().item(), "gain_standard_error": standard_error(difference)}


def prior_row(scores: Scores) -> dict[str, Any]:
    """The row of log p(T).

    For grey levels that is the density of one dequantised T, or the mean of several, and a bound on their cost.
    """
    held_out, estimate = scores.held_out, scores.log_det_estimate or "exact"
    if held_out.levels is not None:
        estimate = (
            "one dequantisation (one draw)" if held_out.draws == 1 else f"bound of {held_out.draws} dequantisations"
        ) + _of_flow(scores)
    more = {"estimate": estimate, **_one_draw(scores, lambda first: first.prior)}
    return row(held_out, scores.prior, name="prior", row_type="prior", **more)


def knowledge_row(scores: Scores, name: str, inconsistency: float | None) -> dict[str, Any]:
    """The row of log p(T given κ=1), on samples in which the knowledge is present."""
    held_out, log_prob = scores.held_out, scores.log_prob_where_present(name)
    return row(
        held_out,
        log_prob,
        name=name,
        row_type="knowledge",
        knowledge=name,
        inconsistency_nats=inconsistency,
        **_gain(held_out, log_prob, scores.prior[held_out.rows(name)]),
        **_one_draw(scores, lambda first: first.log_prob_where_present(name)),
        **_estimate(scores, [name]),
    )


def mean_row(scores: Scores, name: str, members: Sequence[str]) -> dict[str, Any]:
    """The row of the mean over knowledge types of means on their own samples.

    It is the paper's "digit conditional". The label is known; the mixture over the same types sums it out. The standard
    error is that of an average of independent means, and unknown where a mean is of one sample.
    """
    rows = [knowledge_row(scores, member, None) for member in members]

    def average(key: str) -> float | None:
        values = [member[key] for member in rows]
        return None if None in values else sum(values) / len(values)

    def error(key: str) -> float | None:
        values = [member[key] for member in rows]
        return None if None in values else math.sqrt(sum(value**2 for value in values)) / len(values)

    bits = sum(member["bits_per_image"] for member in rows) / len(rows)
    count = sum(member["count"] for member in rows)
    label = ", ".join(members) if len(members) < 3 else f"{members[0]} to {members[-1]}"
    more: dict[str, Any] = {key: average(key) for key in ("gain_bits_per_dim", "one_draw_bits_per_dim")}
    more |= {"gain_standard_error": error("gain_standard_error"), "knowledge": label, **_estimate(scores, members)}
    more |= {"name": name, "row_type": "knowledge", "count": count, "error": error("standard_error")}
    return make_row(scores.held_out, bits, **more)


def mixture_log_prob(scores: Scores, log_weights: Mapping[str, float]) -> Tensor:
    """log Σ_k w_k p(T given κ^k=1), (n,), over members that were scored on every sample."""
    weighted = [scores.conditional[name] + weight for name, weight in log_weights.items()]
    return torch.logsumexp(torch.stack(weighted), 0)


def mixture_row(scores: Scores, name: str, log_weights: Mapping[str, float]) -> dict[str, Any]:
    """The row of the mixture over a partition, on decided samples.

    It is the fair unconditional number of a model with knowledge.
    """
    rows = decided(scores.held_out, log_weights)

    def mixture(scores: Scores) -> Tensor:
        return mixture_log_prob(scores, log_weights)[rows]

    log_prob = mixture(scores)
    return row(
        scores.held_out,
        log_prob,
        name=name,
        row_type="mixture",
        knowledge=", ".join(log_weights),
        **_gain(scores.held_out, log_prob, scores.prior[rows]),
        **_one_draw(scores, mixture),
        **_estimate(scores, log_weights),
    )


def covers(held_out: EvaluationSplit, members: Iterable[str]) -> bool:
    """Whether these knowledge types partition the data set (`partitions.Fit`)."""
    return Fit.of(held_out.presence_of(members)).whole


def decided(held_out: EvaluationSplit, members: Iterable[str]) -> Tensor:
    """Where it is known which of these knowledge types a sample has, (n,) bool."""
    return Fit.of(held_out.presence_of(members)).decided


def _gain(held_out: EvaluationSplit, log_prob: Tensor, prior: Tensor) -> dict[str, float | None]:
    """`gain` from log-densities, (n,), in nats."""
    dims = held_out.T[0].numel()
    bits, prior_bits = (bits_per_image(values.double(), dims, held_out.levels) for values in (log_prob, prior))
    return gain(held_out, bits, prior_bits)


def _one_draw(scores: Scores, log_prob: Callable[[Scores], Tensor]) -> dict[str, float | None]:
    """Bits per dim by the first dequantisation alone, where there are several."""
    if scores.one_draw is None:
        return {"one_draw_bits_per_dim": None}
    dims = scores.held_out.T[0].numel()
    bits = bits_per_image(log_prob(scores.one_draw).double(), dims, scores.held_out.levels)
    return {"one_draw_bits_per_dim": bits.mean().item() / dims}


def _estimate(scores: Scores, names: Iterable[str]) -> dict[str, Any]:
    """How the integrals over C and noise were estimated, and log|det| where it was."""
    held_out, draws = scores.held_out, ""
    if held_out.levels is not None:
        draws = ", one draw" if held_out.draws == 1 else f", {held_out.draws} dequantisations"
    draws += _of_flow(scores)
    if scores.decided.keys() >= set(names):
        return {"estimate": "exact sum over C" + draws}
    return {"estimate": "importance-weighted bound" + draws, "importance_samples": scores.importance_samples}


def _of_flow(scores: Scores) -> str:
    return f", {scores.log_det_estimate}" if scores.log_det_estimate else ""
