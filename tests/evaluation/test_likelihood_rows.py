"""Rows of the likelihood table, against brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from models import NAN, held_out
from torch import Tensor

from tzk_core.build import build_flow
from tzk_core.data.dequantise import dequantise
from tzk_core.evaluation.baseline import histogram_bits
from tzk_core.evaluation.classification import classification
from tzk_core.evaluation.constraint import constraint_notes
from tzk_core.evaluation.likelihood import (
    EvaluationSplit,
    Scores,
    covers,
    knowledge_row,
    mean_row,
    mixture_log_prob,
    mixture_row,
    prior_row,
    row,
)
from tzk_core.evaluation.scoring import score
from tzk_core.model import TzK
from tzk_core.random_streams import stream
from tzk_core.units import bits_per_dim, bits_per_image

# Units


def test_a_uniform_density_is_eight_bits_per_dim_exactly() -> None:
    images = held_out(torch.rand(3, 1, 32, 32), levels=256, original_dims=784)
    uniform = row(images, torch.zeros(3), name="uniform", row_type="prior")  # density 1 on the unit cube
    assert uniform["bits_per_dim"] == 8.0
    assert uniform["bits_per_image"] == 8192.0
    assert uniform["bits_per_pixel"] == 8192 / 784
    assert uniform["standard_error"] == 0.0 and uniform["count"] == 3


def test_a_logit_under_a_logistic_base_is_uniform() -> None:
    """By the whole way from grey levels: p(T) = 1 - 2α inside the unit interval, the rest lies outside."""
    flow = build_flow((1, 4, 4), layers=[{"type": "logit", "alpha": 1e-3}, {"type": "affine"}], base="logistic")
    T = dequantise(torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8), stream(0, "test")).double()
    scored = prior_row(score(TzK(flow.double()).double(), held_out(T, levels=256), 1))
    assert scored["bits_per_dim"] == pytest.approx(8 - math.log2(1 - 2e-3), abs=1e-12)


def test_bits_in_three_units() -> None:
    log_prob = torch.tensor([-100.0, -140.0])
    padded = row(held_out(torch.rand(2, 1, 4, 4), levels=16, original_dims=9), log_prob, name="p", row_type="prior")
    bits = [16 * 4 + 100 / math.log(2), 16 * 4 + 140 / math.log(2)]
    assert padded["bits_per_image"] == pytest.approx(sum(bits) / 2)
    assert padded["bits_per_dim"] == pytest.approx(sum(bits) / 2 / 16)
    assert padded["bits_per_pixel"] == pytest.approx(sum(bits) / 2 / 9)
    resized = row(held_out(torch.rand(2, 1, 4, 4), levels=16), log_prob, name="p", row_type="prior")
    assert resized["bits_per_pixel"] is None
    real = row(held_out(torch.rand(2, 3)), log_prob, name="p", row_type="prior")
    assert real["bits_per_image"] == pytest.approx(120 / math.log(2))
    assert bits_per_image(-math.log(2), 3, None) == pytest.approx(1)
    assert bits_per_dim(0.0, 7, 256) == 8.0


def test_standard_error() -> None:
    log_prob = torch.randn(50, generator=torch.Generator().manual_seed(0))
    values = [-float(each) / math.log(2) for each in log_prob]
    mean = sum(values) / 50
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 49)
    held = held_out(torch.rand(50, 2))
    assert row(held, log_prob, name="p", row_type="prior")["standard_error"] == pytest.approx(deviation / math.sqrt(50))
    assert row(held, log_prob[:1], name="p", row_type="prior")["standard_error"] is None


# The histogram


def test_histogram_equals_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(0, 4, (7, 1, 2, 3), generator=generator, dtype=torch.uint8)
    test = torch.randint(0, 4, (5, 1, 2, 3), generator=generator, dtype=torch.uint8)
    expected = []
    for image in test.flatten(1).tolist():
        bits = 0.0
        for place, level in enumerate(image):
            count = sum(other[place] == level for other in train.flatten(1).tolist())
            bits -= math.log2((count + 0.1) / (7 + 4 * 0.1))
        expected.append(bits)
    assert histogram_bits(train, test, levels=4).tolist() == pytest.approx(expected)


def test_histogram_of_many_images_takes_them_all() -> None:
    """It is a probability: over all 4² images of two pixels it sums to 1."""
    train = torch.randint(0, 4, (30, 2), generator=torch.Generator().manual_seed(0))
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    assert (2 ** -histogram_bits(train, every, levels=4)).sum().item() == pytest.approx(1)
    many = every.repeat(100, 1)
    assert torch.equal(histogram_bits(train, many, levels=4), histogram_bits(train, every, levels=4).repeat(100))


# Rows over several knowledge types


def scores(held: EvaluationSplit, conditional: Tensor) -> Scores:
    """Scores with `conditional`, (knowledge, n), on every sample."""
    rows = torch.arange(len(held.T))
    names = held.knowledge
    return Scores(
        held,
        conditional.mean(0),
        dict.fromkeys(names, rows),
        dict(zip(names, conditional, strict=True)),
        importance_samples=8,
    )


def three() -> Scores:
    held = held_out(torch.rand(4, 2), [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], ["a", "b", "c"])
    return scores(held, torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double())


def test_mixture_equals_brute_force() -> None:
    scored = three()
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    expected = [
        math.log(sum(weight * math.exp(scored.conditional[name][i]) for name, weight in weights.items()))
        for i in range(4)
    ]
    logs = {name: math.log(weight) for name, weight in weights.items()}
    assert mixture_log_prob(scored, logs).tolist() == pytest.approx(expected)
    mixed = mixture_row(scored, "mixture", logs)
    assert mixed["bits_per_image"] == pytest.approx(-sum(expected) / 4 / math.log(2))
    assert mixed["kind"] == "mixture" and mixed["knowledge"] == "a, b, c" and mixed["importance_samples"] == 8


def test_a_knowledge_row_takes_the_samples_that_have_it() -> None:
    scored = three()
    mine = knowledge_row(scored, "a", 1.5)
    assert mine["bits_per_image"] == pytest.approx(-(scored.conditional["a"][:2].mean().item()) / math.log(2))
    assert mine["count"] == 2 and mine["inconsistency_nats"] == 1.5 and mine["knowledge"] == "a"


def test_the_mean_row_averages_classes_and_not_samples() -> None:
    scored = three()
    conditional = scored.conditional
    means = [conditional["a"][:2].mean(), conditional["b"][2], conditional["c"][3]]
    mean = mean_row(scored, "mean", ["a", "b", "c"])
    assert mean["bits_per_image"] == pytest.approx(-sum(float(e) for e in means) / 3 / math.log(2))
    assert mean["count"] == 4
    assert mean["standard_error"] is None, "the classes with one sample have none"
    alone = [knowledge_row(twice(scored), name, None)["standard_error"] for name in "abc"]
    mean = mean_row(twice(scored), "mean", ["a", "b", "c"])
    assert mean["standard_error"] == pytest.approx(math.sqrt(sum(each**2 for each in alone)) / 3)


def twice(scored: Scores) -> Scores:
    """The same samples and as many others, so that every class has several."""
    held = scored.held_out
    more = held_out(torch.cat([held.T, held.T]), torch.cat([held.presence, held.presence]), list(held.knowledge))
    conditional = torch.stack([scored.conditional[name] for name in held.knowledge])
    return scores(more, torch.cat([conditional, conditional.flip(0) - 0.7], 1))


def test_the_gain_is_paired_with_the_prior_of_the_same_samples() -> None:
    """By hand; its error is that of the differences, and not of either figure."""
    scored = twice(three())
    rows = torch.tensor([0, 1, 4, 5])
    differences = [(scored.conditional["a"][i] - scored.prior[i]).item() / math.log(2) / 2 for i in rows]
    mean = sum(differences) / 4
    error = math.sqrt(sum((each - mean) ** 2 for each in differences) / 3 / 4)
    mine = knowledge_row(scored, "a", None)
    assert (mine["gain_bits_per_dim"], mine["gain_standard_error"]) == pytest.approx((mean, error))
    images = 50 * torch.arange(8)
    moved = {name: values + images for name, values in scored.conditional.items()}
    noisy = replace(scored, prior=scored.prior + images, conditional=moved)
    again = knowledge_row(noisy, "a", None)
    assert again["gain_standard_error"] == pytest.approx(error)
    assert again["standard_error"] > 20 * mine["standard_error"], "images differ, which the pairs do not see"

    each = [knowledge_row(scored, name, None) for name in "abc"]
    mean_of = mean_row(scored, "mean", ["a", "b", "c"])
    assert mean_of["gain_bits_per_dim"] == pytest.approx(sum(row["gain_bits_per_dim"] for row in each) / 3)
    squares = sum(row["gain_standard_error"] ** 2 for row in each)
    assert mean_of["gain_standard_error"] == pytest.approx(math.sqrt(squares) / 3)

    logs = dict.fromkeys("abc", math.log(1 / 3))
    mixed = mixture_row(scored, "mixture", logs)
    difference = mixture_log_prob(scored, logs) - scored.prior
    assert mixed["gain_bits_per_dim"] == pytest.approx(difference.mean().item() / math.log(2) / 2)
    assert knowledge_row(three(), "b", None)["gain_standard_error"] is None  # of one sample


def test_bayes_takes_the_shares_of_the_members_into_account() -> None:
    """Of an image that two members explain alike but for little, the one that is common is the more probable."""
    held = held_out(torch.rand(3, 2), [[1, 0], [1, 0], [0, 1]], ["common", "rare"])
    conditional = torch.tensor([[-10.0, -12.0, -10.0], [-9.0, -9.0, -9.5]], dtype=torch.float64)
    presence = {"common": torch.tensor([-0.1, -2.0, -0.1]), "rare": torch.tensor([-2.0, -0.1, -2.0])}
    scored = replace(scores(held, conditional), presence=presence)
    decided = classification(scored, "shares", {"common": math.log(0.9), "rare": math.log(0.1)})  # log odds of 2.2
    assert decided["bayes_accuracy"] == pytest.approx(1 / 3)  # the first alone: 1 < 2.2 < 3, and 0.5 < 2.2
    assert decided["discriminator_accuracy"] == pytest.approx(1 / 3) and decided["disagreement"] == 0
    even = classification(scored, "even", dict.fromkeys(("common", "rare"), math.log(0.5)))
    assert even["bayes_accuracy"] == pytest.approx(1 / 3) and even["disagreement"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("multipliers", "fixed", "note"),
    [
        ({"a": 0.0, "b": 0.0}, False, "tolerance of 20 nats, was not active"),
        ({"a": 0.0, "b": 0.0}, True, "The constraint of Eq. 5 was off"),
        ({"a": 0.0, "b": 1e-6}, False, None),
        ({"a": 0.1}, True, None),
        ({}, False, None),  # not known, as of a model that is shared without its training
    ],
)
def test_a_constraint_that_was_not_active_is_a_note(
    multipliers: dict[str, float], fixed: bool, note: str | None
) -> None:
    notes = constraint_notes(multipliers, 20.0, fixed=fixed)
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


@pytest.mark.parametrize(
    ("presence", "expected"),
    [
        ([[1, 0], [0, 1]], True),
        ([[1, 0], [1, 0]], True),
        ([[1, 1], [0, 1]], False),
        ([[0, 0], [0, 1]], False),
        ([[NAN, 0], [0, 1]], True),  # on the samples whose labels decide
        ([[NAN, NAN], [0, 1]], True),
        ([[1, NAN], [0, 1]], True),
        ([[NAN, NAN], [1, NAN]], False),  # of which there are none here
        ([[NAN, 0], [0, 0]], False),
        ([[NAN, 0], [1, 1]], False),
    ],
)
def test_a_partition_has_exactly_one_member_in_each_sample_that_is_decided(
    presence: list[list[float]], expected: bool
) -> None:
    assert covers(held_out(torch.rand(2, 2), presence, ["a", "b"]), ["a", "b"]) is expected
