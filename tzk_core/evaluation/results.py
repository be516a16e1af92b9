"""The whole of results.json: likelihoods, what each knowledge type knows, classification, invertibility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.evaluation import likelihood
from tzk_core.evaluation.baseline import histogram_bits
from tzk_core.evaluation.classification import classification, classification_of_characteristics
from tzk_core.evaluation.information import Information, information
from tzk_core.evaluation.likelihood import EvaluationSplit, Scores
from tzk_core.evaluation.partitions import Labels
from tzk_core.evaluation.scoring import invertibility, score
from tzk_core.model import TzK
from tzk_core.modes import evaluating
from tzk_core.units import bits_per_image

FORMAT = 1


def evaluate(
    model: TzK,
    held: Sequence[EvaluationSplit],
    train: Mapping[str, Tensor],
    *,
    partitions: Mapping[str, Sequence[str]],
    means: Mapping[str, Sequence[str]],
    published: Sequence[Mapping[str, Any]],
    multipliers: Mapping[str, float],
    importance_samples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is reported about a model on held-out data.

    train: by data set, the training images in grey levels, (n, *shape), for the histogram baseline.
    partitions and means: by title, names of knowledge types. published: rows of others. multipliers: λ at the
    end of training. Raises `TzkError` for a partition that partitions no data set. One that the labels of some samples
    do not decide is evaluated on the others.

    Knowledge types that no `held` knows of, as importing may have brought them, take no part.

    The result is results.json: "rows", each with the keys of `likelihood.make_row`; "knowledge", of each type
    the terms of Eq. 4 in nats (see `Information`), `inconsistency_nats` over all data sets, accuracy of the
    discriminator, plain and balanced between present and absent, `multiplier`, `presence_prior` p(κ=1), and
    `gap_nats`, the mean of log p(T given κ=1) - log p(T) where it is present; "classification", one entry for
    each partition of each data set in which several of its members occur, and for each knowledge type whose observed
    C has finitely many values; "invertibility", with its unit.
    """
    labels = Labels(held[0].split, held[0].knowledge, {each.dataset: each.presence for each in held})
    for problem in labels.problems(partitions, {}):
        raise TzkError(problem)
    with evaluating(model):
        return _evaluate(
            model,
            held,
            train,
            partitions=partitions,
            means=means,
            published=published,
            multipliers=multipliers,
            importance_samples=importance_samples,
            seed=seed,
        )


def _evaluate(
    model: TzK,
    held: Sequence[EvaluationSplit],
    train: Mapping[str, Tensor],
    *,
    partitions: Mapping[str, Sequence[str]],
    means: Mapping[str, Sequence[str]],
    published: Sequence[Mapping[str, Any]],
    multipliers: Mapping[str, float],
    importance_samples: int,
    seed: int,
) -> dict[str, Any]:
    """`evaluate`, in evaluation mode and of partitions that fit."""
    weights = {title: log_weights(model, members) for title, members in partitions.items()}
    info = information(model, held, seed)
    rows: list[dict[str, Any]] = []
    classified: list[dict[str, Any]] = []
    gaps: dict[str, list[Tensor]] = {}
    for each in held:
        here = {title: weights[title] for title, members in partitions.items() if likelihood.covers(each, members)}
        everywhere = {name for members in here.values() for name in members}
        scores = score(model, each, importance_samples, everywhere, seed)
        rows += _model_rows(scores, info, here, means)
        rows += _baseline_rows(scores, train[each.dataset])
        several = {title: members for title, members in here.items() if _several(each, members)}
        classified += [classification(scores, title, members) for title, members in several.items()]
        observed = {name for name, C in each.characteristics.items() if not C.isnan().all()}
        finite = [name for name in scores.decided if name in observed]
        classified += [classification_of_characteristics(model, scores, name) for name in finite]
        for name in scores.given:
            if len(present := each.rows(name)):
                gaps.setdefault(name, []).append(scores.log_prob_where_present(name) - scores.prior[present])
    rows += [_published_row(each) for each in published]
    errors = [invertibility(model, each) for each in held]
    return {
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
        "classification": classified,
        "invertibility": {
            "max_abs_error": max(exact for exact, _ in errors),
            "max_abs_error_without_float64": max(single for _, single in errors),
            "unit": "grey levels" if held[0].levels else "the data's",
            "dtype": str(model.like.dtype).removeprefix("torch."),
        },
    }


def _model_rows(
    scores: Scores,
    info: Mapping[str, Information],
    partitions: Mapping[str, Mapping[str, float]],
    means: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    held = scores.held
    present = [name for name in held.knowledge if len(held.rows(name))]
    rows = [likelihood.prior_row(scores)]
    for name in present:
        inconsistency = info[name].inconsistency_of.get(held.dataset)
        rows.append(likelihood.knowledge_row(scores, name, inconsistency.value if inconsistency else None))
    for title, members in means.items():
        if set(members) <= set(present):
            rows.append(likelihood.mean_row(scores, title, members))
    rows += [likelihood.mixture_row(scores, title, members) for title, members in partitions.items()]
    return rows


def _baseline_rows(scores: Scores, train: Tensor) -> list[dict[str, Any]]:
    """The per-pixel histogram, where the data are grey levels; dequantised test data keep theirs.

    It gives grey levels a probability, which is exact however often they are dequantised.
    """
    held = scores.held
    if held.levels is None:
        return []
    levels = (held.T * held.levels).floor().clamp(0, held.levels - 1)
    bits = histogram_bits(train, levels, held.levels).cpu()
    prior = bits_per_image(scores.prior.double(), held.T[0].numel(), held.levels)
    error, more = likelihood.standard_error(bits), likelihood.gain(held, bits, prior)
    name, mean = "per-pixel histogram", bits.mean().item()
    return [likelihood.make_row(held, name, "baseline", mean, len(bits), error, **more)]


def log_weights(model: TzK, members: Sequence[str]) -> dict[str, float]:
    """log w_k of a partition, proportional to p(κ^k=1), summing to 1."""
    logits = torch.stack([model.find(name).log_prob_presence().present for name in members]).double()
    return dict(zip(members, (logits - logits.logsumexp(0)).tolist(), strict=True))


def _several(held: EvaluationSplit, members: Mapping[str, float]) -> bool:
    """Whether there is something to tell apart: more than one member occurs in this data set."""
    return sum(len(held.rows(name)) > 0 for name in members) > 1


def _published_row(table: Mapping[str, Any]) -> dict[str, Any]:
    """A row of somebody else's: the unit in which it was published, and null in the others."""
    row = dict.fromkeys(
        ("name", "kind", "knowledge", "dataset", "split", "count", "bits_per_image", "bits_per_dim")
        + ("bits_per_pixel", "one_draw_bits_per_dim", "estimate", "importance_samples", "standard_error")
        + ("gain_bits_per_dim", "gain_standard_error", "inconsistency_nats")
    )
    source = table.get("source")
    quoted = {key: table.get(key) for key in ("name", "dataset", "bits_per_dim", "bits_per_pixel")}
    return row | quoted | {"kind": "published", "estimate": f"published: {source}" if source else "published"}
