"""Densities averaged over several dequantisations of each sample: a bound on what the grey levels cost."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from models import NO_TABLES, held_out
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.data.dequantise import dequantise
from tzk_core.evaluation.classification import classification
from tzk_core.evaluation.likelihood import EvaluationSplit, Scores, knowledge_row, mean_row, mixture_row, prior_row
from tzk_core.evaluation.results import evaluate
from tzk_core.evaluation.scoring import _scored, score
from tzk_core.model import TzK
from tzk_core.random_streams import stream

SHAPE = (1, 1, 2)
NAMES = ("a", "b")


def model_and_held(draws: int, levels: int = 4, times: int = 1) -> tuple[TzK, EvaluationSplit]:
    """A density that varies within a grey level, and every image of two pixels, so many times."""
    torch.manual_seed(0)
    model = TzK(build_flow(SHAPE, layers=[{"type": "logit"}, {"type": "affine"}])).double()
    for number, name in enumerate(NAMES):
        kind = build_knowledge("gaussian", SHAPE, name=name, hidden=5).double()
        with torch.no_grad():
            for parameter in kind.parameters():
                parameter += 0.5 * torch.randn(parameter.shape, generator=stream(number, "moved"))
        model.add(name, kind)
    images = torch.cartesian_prod(*[torch.arange(levels)] * 2).view(-1, *SHAPE).repeat(times, 1, 1, 1).to(torch.uint8)

    def redraw(*number: int) -> Tensor:
        return dequantise(images, stream(0, "noise", *number), levels).double()

    presence = torch.nn.functional.one_hot(torch.arange(len(images)) % 2, 2).float()
    held = held_out(redraw(), presence, list(NAMES), levels=levels)
    return model, replace(held, draws=draws, redraw=redraw)


def scored(model: TzK, held: EvaluationSplit) -> Scores:
    return score(model, held, 8, everywhere=NAMES)


def test_are_the_mean_of_the_densities_of_each() -> None:
    model, held = model_and_held(3)
    whole = scored(model, held)
    each = [
        _scored(model, held, T, number=number, importance_samples=8, everywhere=NAMES)
        for number, T in enumerate(held.dequantisations())
    ]
    densities = torch.stack([model.log_prob(T).exp() for T in held.dequantisations()])
    torch.testing.assert_close(whole.prior, densities.mean(0).log())
    for name in NAMES:
        means = torch.stack([scores.conditional[name].exp() for scores in each]).mean(0)
        torch.testing.assert_close(whole.conditional[name].exp(), means)
        assert torch.equal(each[0].conditional[name], scored(model, replace(held, draws=1)).conditional[name])
        assert not torch.equal(each[1].conditional[name], each[2].conditional[name])


def test_the_more_the_closer_to_the_probability_of_the_grey_levels() -> None:
    """Against the integral of the density over each cell, by a grid."""
    levels, nodes = 4, 200
    model, held = model_and_held(1, levels, times=100)
    ticks = (torch.arange(nodes) + 0.5) / nodes
    grid = torch.cartesian_prod(ticks, ticks).view(-1, *SHAPE).double()
    corners = (held.T[: levels**2] * levels).floor()
    truth = torch.stack([model.log_prob((corner + grid) / levels).exp().mean().log() for corner in corners])
    truth = truth.repeat(100)
    slack = [(truth - scored(model, replace(held, draws=draws)).prior).mean().item() for draws in (1, 8, 64)]
    assert slack[0] > 3 * slack[1] > 9 * slack[2] > 0


def test_rows_say_that_they_are_bounds() -> None:
    model, held = model_and_held(4)
    whole = scored(model, held)
    assert prior_row(whole)["estimate"] == "bound of 4 dequantisations"
    assert knowledge_row(whole, "a", None)["estimate"] == "importance-weighted bound, 4 dequantisations"
    summed = replace(whole, decided={"a": torch.zeros(len(whole.rows["a"]))})  # as of a C with finitely many values
    assert knowledge_row(summed, "a", None)["estimate"] == "exact sum over C, 4 dequantisations"
    assert mean_row(summed, "mean", NAMES)["estimate"] == "importance-weighted bound, 4 dequantisations"


def test_rows_of_one_draw_say_so_and_those_of_numbers_are_exact() -> None:
    model, held = model_and_held(1)
    for each, draws, prior in ((held, ", one draw", "one dequantisation (one draw)"), (real(held), "", "exact")):
        single = scored(model, each)
        assert prior_row(single)["estimate"] == prior
        assert knowledge_row(single, "a", None)["estimate"] == f"importance-weighted bound{draws}"
        summed = replace(single, decided={"a": torch.zeros(len(single.rows["a"]))})
        assert knowledge_row(summed, "a", None)["estimate"] == f"exact sum over C{draws}"
        assert prior_row(single)["one_draw_bits_per_dim"] is None


def real(held: EvaluationSplit) -> EvaluationSplit:
    """The same numbers, not being grey levels."""
    return replace(held, levels=None, redraw=None)


def test_one_draw_stands_beside_several() -> None:
    """The figure that each row would have by its first dequantisation alone."""
    model, held = model_and_held(6)
    several, single = scored(model, held), scored(model, replace(held, draws=1))
    weights = dict.fromkeys(NAMES, math.log(0.5))
    for made in (
        prior_row,
        lambda scores: knowledge_row(scores, "b", None),
        lambda scores: mean_row(scores, "mean", NAMES),
        lambda scores: mixture_row(scores, "mixture", weights),
    ):
        alone, beside = made(single), made(several)
        assert beside["one_draw_bits_per_dim"] == alone["bits_per_dim"] != beside["bits_per_dim"]


def test_the_histogram_is_exact_whatever_the_number_of_dequantisations() -> None:
    model, held = model_and_held(3)
    train = (held.T * 4).floor().to(torch.uint8)
    rows = evaluate(model, [held], {held.dataset: train}, **NO_TABLES, importance_samples=2)["rows"]
    (histogram,) = [each for each in rows if each["kind"] == "baseline"]
    (prior,) = [each for each in rows if each["kind"] == "prior"]
    assert histogram["estimate"] == "exact" and histogram["one_draw_bits_per_dim"] is None
    assert prior["one_draw_bits_per_dim"] is not None
    gained = prior["bits_per_dim"] - histogram["bits_per_dim"]
    assert histogram["gain_bits_per_dim"] == pytest.approx(gained, abs=1e-6)


def test_discriminators_answer_for_the_grey_levels() -> None:
    """Each draw's p(κ given T), weighing as its p(T): by hand."""
    model, held = model_and_held(5)
    found = classification(scored(model, held), "ab", dict.fromkeys(NAMES, math.log(0.5)))
    total = torch.zeros(len(held.T), 2, dtype=torch.float64)
    for T in held.dequantisations():
        z, logabsdet = model.flow.encode(T)
        weight = (model.flow.base.log_prob(z) + logabsdet).exp()
        given = [model.find(name).log_prob_presence_given(z).present.exp() for name in NAMES]
        total += weight.unsqueeze(1) * torch.stack(given, 1)
    truth = held.presence.argmax(1)
    assert found["discriminator_accuracy"] == (total.argmax(1) == truth).double().mean().item()
