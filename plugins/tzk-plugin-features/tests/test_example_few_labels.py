"""The measurement of few labels: neighbours are nearest, labels spread, EM goes on, figures are what they say."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from scripts import module_of, printed_by
from torch import Tensor
from tzk_plugin_features.features import Features

import tzk_core

FOLDER = Path(__file__).parents[3] / "examples" / "knowledge"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return module_of(FOLDER / "few_labels.py")


@pytest.fixture(scope="module")
def rivals(script: ModuleType) -> ModuleType:
    return sys.modules["neighbours"]


def digits_on_a_circle(count: int, *, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Points around ten places on a circle, and which, in turn."""
    digits = torch.arange(count) % 10
    angles = digits * (2 * math.pi / 10)
    around = noise * torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return 10 * torch.stack([angles.cos(), angles.sin()], 1) + around, digits


def test_neighbours_are_the_nearest(rivals: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "BLOCK", 7)  # more than one block
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    found = rivals.nearest(x, x, 4, own=True)
    distances = torch.cdist(x, x).square().fill_diagonal_(torch.inf)
    assert torch.equal(found.rows, distances.argsort(1)[:, :4])
    torch.testing.assert_close(found.squares, distances.sort(1).values[:, :4], rtol=1e-3, atol=1e-4)
    assert torch.equal(rivals.nearest(x, x, 1).rows[:, 0], torch.arange(40))


def test_the_graph_is_symmetric_and_its_largest_eigenvalue_is_1(rivals: ModuleType) -> None:
    x, _ = digits_on_a_circle(60)
    weights = rivals.graph(rivals.nearest(x, x, 5, own=True)).to_dense()
    torch.testing.assert_close(weights, weights.T)
    assert float(torch.linalg.eigvalsh(weights.double()).max()) == pytest.approx(1, abs=1e-5)


def test_labels_spread_as_the_inverse_has_it_and_within_what_is_connected(rivals: ModuleType) -> None:
    """The limit is (1 - share) (1 - share S)^-1 Y (Zhou et al. 2004)."""
    x, digits = digits_on_a_circle(60)
    S = rivals.graph(rivals.nearest(x, x, 4, own=True))
    labels = torch.zeros(60, 10)
    labels[torch.arange(10), digits[:10]] = 1
    found = rivals.spread(S, labels, share=0.5, rounds=40)
    expected = 0.5 * torch.linalg.inv(torch.eye(60) - 0.5 * S.to_dense()) @ labels
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.argmax(1), digits)


def test_balanced_shares_are_shares_and_balanced(rivals: ModuleType) -> None:
    shares = torch.rand(300, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0, 0.2, 1.0])
    found = rivals.balanced(shares, rounds=100)
    torch.testing.assert_close(found.sum(1), torch.ones(300))
    torch.testing.assert_close(found.mean(0), torch.full((4,), 0.25), rtol=1e-3, atol=0)
    again = rivals.balanced(found)
    torch.testing.assert_close(again, found, rtol=1e-2, atol=1e-4)


def test_a_vote_is_of_the_neighbours(rivals: ModuleType) -> None:
    found = rivals.Neighbours(torch.tensor([[2, 0]]), torch.tensor([[1.0, 2.0]]))
    shares = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    expected = torch.tensor([[math.exp(-1), math.exp(-0.5)]])
    torch.testing.assert_close(rivals.vote(found, shares), expected)


def test_labels_are_as_many_of_every_digit_and_differ_by_seed(script: ModuleType) -> None:
    _, digits = digits_on_a_circle(200)
    first, second = (script.labelled(digits, 50, seed) for seed in range(2))
    assert first.sum(0).tolist() == [5] * 10
    known = first.sum(1) > 0
    assert int(known.sum()) == 50 and torch.equal(first[known].argmax(1), digits[known])
    assert not torch.equal(first, second) and torch.equal(first, script.labelled(digits, 50, 0))


def test_em_learns_from_images_without_a_label(script: ModuleType, rivals: ModuleType) -> None:
    """From the digits of the nearest labels, of which there are ten; a label that is known stays what it is."""
    y, digits = digits_on_a_circle(400, noise=1.4)
    labels = script.labelled(digits, 10, 0)
    known = labels.sum(1) > 0
    shares = labels[known][rivals.nearest(y, y[known], 1).rows[:, 0]]
    types = script.TenTypes(Features((2,)), (2,), y, components=1, shrinkage=0.0, trust=0.1)
    fitted, fit = [], types.fit
    types.fit = lambda y, shares: (fitted.append(shares), fit(y, shares))
    script.expectation_maximisation(types, y, shares, labels=labels, rounds=8)
    before, after = (script.accuracy(scores, digits) for scores in (shares, types.log_ratios(y)))
    assert before < 0.97 and after > before + 0.02
    assert all(torch.equal(shares[known], labels[known]) for shares in fitted)


def test_a_model_with_the_types_answers_as_the_table_does(script: ModuleType, tmp_path: Path) -> None:
    y, digits = digits_on_a_circle(400)
    types = script.TenTypes(Features((2,)), (2,), y, components=2)
    types.fit(y, torch.nn.functional.one_hot(digits, 10).float())
    tzk_core.save(tzk_core.TzK(tzk_core.build_flow((2,), layers=[{"type": "affine"}])), tmp_path / "run")
    row = types.difference(tmp_path / "run", y[:30], types.log_ratios(y[:30]))
    assert row["same_class"] == 1.0 and row["largest_difference_nats"] < 1e-2


def test_the_calibration_error_is_that_of_a_forecast_that_is_known(script: ModuleType) -> None:
    """Nine of ten right at a confidence of 0.7, and all wrong at one of 0.55: 0.2 and 0.55, half of the images each."""
    certain, unsure = torch.tensor([[0.7, 0.3]]), torch.tensor([[0.55, 0.45]])
    probabilities = torch.cat([certain.repeat(10, 1), unsure.repeat(10, 1)])
    digits = torch.tensor([0] * 9 + [1] * 11)
    assert script.calibration_error(probabilities, digits) == pytest.approx(0.5 * 0.2 + 0.5 * 0.55)
    assert script.calibration_error(torch.tensor([[1.0, 0.0]]), torch.tensor([0])) == 0


def test_the_temperature_of_what_was_made_too_certain_is_found(script: ModuleType) -> None:
    source = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 5, generator=source)
    digits = torch.multinomial(logits.softmax(1), 1, generator=source)[:, 0]
    assert script.temperature_of(7 * logits, digits) == pytest.approx(7, rel=0.1)


def test_it_shows_its_usage() -> None:
    assert "--seeds" in printed_by(FOLDER / "few_labels.py", "--help")
