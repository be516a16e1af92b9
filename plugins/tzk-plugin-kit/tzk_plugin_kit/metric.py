"""Checks of a `Metric`: columns and rows as promised, repeatability, and an unchanged model."""

from __future__ import annotations

import copy
import json
from typing import Any

import torch

from tzk_core.build import build_flow, build_knowledge
from tzk_core.evaluation.likelihood import EvaluationSplit
from tzk_core.evaluation.metrics import AskedMetric, Evaluated, Metric
from tzk_core.evaluation.scoring import score
from tzk_core.model import TzK
from tzk_core.modes import evaluating
from tzk_core.random_streams import stream
from tzk_core.testing.expectations import expect

NAMES = ("a", "b")
COUNT = 12
IMPORTANCE_SAMPLES = 3


def check_metric(metric: Metric, shape: tuple[int, ...] = (1, 4, 4), levels: int | None = 256) -> list[dict[str, Any]]:
    """Check a metric on small models, with knowledge and without.

    Args:
        shape, levels: of the observations, for a metric of some alone; `levels` is None for real-valued ones.

    Returns:
        Its rows on the model with knowledge.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    name = type(metric).__name__
    rows: list[dict[str, Any]] = []
    for knowledge in ((), NAMES):
        splits = [_evaluated(dataset, knowledge, shape, levels=levels) for dataset in ("first", "second")]
        where = f"{name}, of a model with{'' if knowledge else 'out'} knowledge"
        rows, again = (_rows(where, copy.deepcopy(metric), splits) for _ in range(2))
        expect(_text(again) == _text(rows), f"{where}: rows should be the same each time; they differ")
        apart = [row for split in reversed(splits) for row in _rows(where, copy.deepcopy(metric), [split])]
        alike = sorted(map(_text, apart)) == sorted(map(_text, rows))
        expect(alike, f"{where}: rows of a split should not depend on other splits; they do. Draw nothing at random")
    return rows


def _rows(where: str, metric: Metric, splits: list[Evaluated]) -> list[dict[str, Any]]:
    """Its rows; everything that they are made from is then as it was."""
    models = {id(split.model): split.model for split in splits}.values()
    before = [{key: value.clone() for key, value in model.state_dict().items()} for model in models]
    observations = [split.held_out.T.clone() for split in splits]
    grad, threads = torch.is_grad_enabled(), torch.get_num_threads()
    asked = AskedMetric("it", "plugin", "", "", {}, lambda: metric)
    entry = asked.measured(splits)
    expect("error" not in entry, f"{where}: {entry.get('error')}")
    for model, state in zip(models, before, strict=True):
        kept = all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
        expect(kept and not model.training, f"{where}: it should leave the model as it was, in evaluation mode")
    kept = all(torch.equal(split.held_out.T, T) for split, T in zip(splits, observations, strict=True))
    expect(kept, f"{where}: it should leave the observations as they were")
    expect(
        (torch.is_grad_enabled(), torch.get_num_threads()) == (grad, threads),
        f"{where}: it should leave torch's gradients and threads as they were",
    )
    return list(entry["rows"])


def _text(rows: Any) -> str:
    return json.dumps(rows, sort_keys=True)


def _evaluated(dataset: str, knowledge: tuple[str, ...], shape: tuple[int, ...], *, levels: int | None) -> Evaluated:
    """A tiny model on samples of which each has one knowledge type."""
    generator = stream(0, "metric", dataset)
    T = torch.rand(COUNT, *shape, generator=generator)
    if levels is not None:
        T = ((T * levels).floor() + torch.rand(T.shape, generator=generator)) / levels
    model = TzK(build_flow(shape, layers=[{"type": "affine"}]))
    for name in knowledge:
        model.add(name, build_knowledge("gaussian", shape, name=name, hidden=4))
    presence = torch.eye(len(knowledge))[torch.arange(COUNT) % len(knowledge)] if knowledge else torch.zeros(COUNT, 0)
    held_out = EvaluationSplit(
        dataset=dataset,
        split="test",
        T=T,
        presence=presence,
        knowledge=knowledge,
        characteristics={},
        levels=levels,
        original_dims=T[0].numel(),
        share=0.5,
    )
    partitions = {"both": dict.fromkeys(knowledge, -0.6931471805599453)} if knowledge else {}
    with evaluating(model):
        scores = score(model, held_out, IMPORTANCE_SAMPLES, everywhere=knowledge)
    return Evaluated(model.eval(), scores, partitions, IMPORTANCE_SAMPLES)
