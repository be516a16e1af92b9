"""The whole of results.json: likelihoods, information, classification, invertibility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.evaluation import likelihood
from tzk_core.evaluation.baseline import gaussian_log_prob, histogram_bits
from tzk_core.evaluation.classification import Classification
from tzk_core.evaluation.information import Information, information
from tzk_core.evaluation.likelihood import EvaluationSplit, Scores
from tzk_core.evaluation.metrics import AskedMetric, Evaluated
from tzk_core.evaluation.partitions import Labels
from tzk_core.evaluation.scoring import invertibility, score
from tzk_core.model import TzK
from tzk_core.modes import evaluating
from tzk_core.units import bits_per_image
from tzk_core.world import ALONE, World

FORMAT = 1


def evaluate(
    model: TzK,
    held_out: Sequence[EvaluationSplit],
    train: Mapping[str, Tensor],
    *,
    partitions: Mapping[str, Sequence[str]],
    means: Mapping[str, Sequence[str]],
    published: Sequence[Mapping[str, Any]],
    multipliers: Mapping[str, float],
    importance_samples: int,
    metrics: Sequence[AskedMetric] = (),
    seed: int = 0,
    world: World = ALONE,
) -> dict[str, Any]:
    """Evaluate a model on held-out data.

    Knowledge types without presence in any split, as importing may have brought them, have no part. A partition is
    evaluated on the samples whose labels decide.

    Args:
        train: by data set, training samples as they are, (n, *shape), for the baseline.
        partitions, means: by title, names of knowledge types.
        published: rows of others.
        multipliers: λ at the end of training.
        metrics: evaluated last, so that none can change the rest.
        world: whose other processes call `take_part` meanwhile.

    Returns:
        results.json, with these keys.
        rows: with the keys of `likelihood.make_row`.
        knowledge: of every type the terms of Eq. 4 in nats (see `Information`), "multiplier", "presence_prior" p(κ=1),
            and "gap_nats", the mean of log p(T given κ=1) - log p(T) where it is present.
        classification: of partitions with several members in a data set, and of every observed C with finitely many
            values.
        invertibility: with its unit.
        metrics: the entries of `AskedMetric.measured`, where any are asked for, and "notes" on those that failed.

    Raises:
        TzkError: for a partition that partitions no data set.
    """
    labels = Labels(held_out[0].split, held_out[0].knowledge, {split.dataset: split.presence for split in held_out})
    for problem in labels.problems(partitions, {}):
        raise TzkError(problem)
    with evaluating(model):
        return _evaluate(
            model,
            held_out,
            train,
            partitions=partitions,
            means=means,
            published=published,
            multipliers=multipliers,
            importance_samples=importance_samples,
            metrics=metrics,
            seed=seed,
            world=world,
        )


def take_part(
    model: TzK,
    held_out: Sequence[EvaluationSplit],
    *,
    partitions: Mapping[str, Sequence[str]],
    importance_samples: int,
    seed: int,
    world: World,
) -> None:
    """Score a part of the samples for the first process.

    That one calls `evaluate` with the same arguments.
    """
    with evaluating(model):
        for split in held_out:
            _scored(model, split, partitions, importance_samples=importance_samples, seed=seed, world=world)


def _scored(
    model: TzK,
    split: EvaluationSplit,
    partitions: Mapping[str, Sequence[str]],
    *,
    importance_samples: int,
    seed: int,
    world: World,
) -> Scores:
    """The scores of a split.

    Members of what partitions it are scored on all of its samples.
    """
    everywhere = {name for members in partitions.values() if likelihood.covers(split, members) for name in members}
    return score(model, split, importance_samples, everywhere=everywhere, seed=seed, world=world)


def _evaluate(
    model: TzK,
    held_out: Sequence[EvaluationSplit],
    train: Mapping[str, Tensor],
    *,
    partitions: Mapping[str, Sequence[str]],
    means: Mapping[str, Sequence[str]],
    published: Sequence[Mapping[str, Any]],
    multipliers: Mapping[str, float],
    importance_samples: int,
    metrics: Sequence[AskedMetric],
    seed: int,
    world: World,
) -> dict[str, Any]:
    """`evaluate`, in evaluation mode and of partitions that fit."""
    all_scores = [  # first, so that other processes, which end after it, do not wait
        _scored(model, split, partitions, importance_samples=importance_samples, seed=seed, world=world)
        for split in held_out
    ]
    weights = {title: log_weights(model, members) for title, members in partitions.items()}
    info = information(model, held_out, seed=seed)
    rows: list[dict[str, Any]] = []
    splits: list[Evaluated] = []
    gaps: dict[str, list[Tensor]] = {}
    for split, scores in zip(held_out, all_scores, strict=True):
        here = {title: weights[title] for title, members in partitions.items() if likelihood.covers(split, members)}
        rows += _model_rows(scores, info, partitions=here, means=means)
        rows += _baseline_rows(scores, train[split.dataset])
        splits.append(Evaluated(model, scores, here, importance_samples, seed))
        for name in scores.conditional:
            if len(present := split.rows(name)):
                gaps.setdefault(name, []).append(scores.log_prob_where_present(name) - scores.prior[present])
    rows += [_published_row(table) for table in published]
    errors = [invertibility(model, split) for split in held_out]
    results = {
        "format": FORMAT,
        "rows": rows,
        "knowledge": [
            {
                **info[name].to_json(name),
                "multiplier": multipliers.get(name),
                "presence_prior": model.find(name).log_prob_presence().present.exp().item(),
                "gap_nats": torch.cat(gaps[name]).mean().item() if name in gaps else None,
            }
            for name in info
        ],
        "classification": [row for split in splits for row in Classification().rows(split)],
        "invertibility": {
            "max_abs_error": max(exact for exact, _ in errors),
            "max_abs_error_without_float64": max(single for _, single in errors),
            "unit": "grey levels" if held_out[0].levels else "the data's",
            "dtype": str(model.like.dtype).removeprefix("torch."),
        },
    }
    return results | _measured(metrics, splits)


def _measured(metrics: Sequence[AskedMetric], splits: Sequence[Evaluated]) -> dict[str, Any]:
    """The tables of the metrics that were asked for, and notes on those that failed."""
    entries = [metric.measured(splits) for metric in metrics]
    notes = [note for metric, entry in zip(metrics, entries, strict=True) if (note := metric.note(entry))]
    return ({"metrics": entries} if entries else {}) | ({"notes": notes} if notes else {})


def _model_rows(
    scores: Scores,
    info: Mapping[str, Information],
    *,
    partitions: Mapping[str, Mapping[str, float]],
    means: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """The rows of prior, knowledge, means and mixtures."""
    held_out = scores.held_out
    present = [name for name in held_out.knowledge if len(held_out.rows(name))]
    rows = [likelihood.prior_row(scores)]
    for name in present:
        inconsistency = info[name].inconsistency_of.get(held_out.dataset)
        rows.append(likelihood.knowledge_row(scores, name, inconsistency.value if inconsistency else None))
    for title, members in means.items():
        if set(members) <= set(present):
            rows.append(likelihood.mean_row(scores, title, members))
    rows += [likelihood.mixture_row(scores, title, members) for title, members in partitions.items()]
    return rows


def _baseline_rows(scores: Scores, train: Tensor) -> list[dict[str, Any]]:
    """The row of the per-pixel histogram, or for real-valued data that of the full-covariance Gaussian.

    Dequantised test data have the levels of their cells, whose probability is exact for any number of dequantisations.
    """
    held_out = scores.held_out
    dims = held_out.T[0].numel()
    if held_out.levels is None:
        name, log_prob = "full-covariance Gaussian", gaussian_log_prob(train, held_out.T)
        bits = None if log_prob is None else bits_per_image(log_prob, dims, None)
    else:
        levels = (held_out.T * held_out.levels).floor().clamp(0, held_out.levels - 1)
        name, bits = "per-pixel histogram", histogram_bits(train, levels, levels=held_out.levels).cpu()
    if bits is None:
        return []
    prior = bits_per_image(scores.prior.double(), dims, held_out.levels)
    columns: dict[str, Any] = {"name": name, "row_type": "baseline", "count": len(bits)}
    columns |= {"error": likelihood.standard_error(bits), **likelihood.gain(held_out, bits, prior)}
    return [likelihood.make_row(held_out, bits.mean().item(), **columns)]


def log_weights(model: TzK, members: Sequence[str]) -> dict[str, float]:
    """log w_k of a partition, proportional to p(κ^k=1), summing to 1."""
    logits = torch.stack([model.find(name).log_prob_presence().present for name in members]).double()
    return dict(zip(members, (logits - logits.logsumexp(0)).tolist(), strict=True))


def _published_row(table: Mapping[str, Any]) -> dict[str, Any]:
    """A published row: the unit in which it was published, and null in the others."""
    row = dict.fromkeys(
        ("name", "kind", "knowledge", "dataset", "split", "count", "bits_per_image", "bits_per_dim")
        + (
            "bits_per_pixel",
            "log_prob_nats",
            "one_draw_bits_per_dim",
            "estimate",
            "importance_samples",
            "standard_error",
        )
        + ("gain_bits_per_dim", "gain_standard_error", "inconsistency_nats")
    )
    source = table.get("source")
    quoted = {key: table.get(key) for key in ("name", "dataset", "bits_per_dim", "bits_per_pixel")}
    return row | quoted | {"kind": "published", "estimate": f"published: {source}" if source else "published"}
