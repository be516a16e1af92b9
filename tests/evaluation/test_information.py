"""The terms of Eq. 4 and classification on held-out data, against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from models import NAN, held_out
from torch import Tensor, nn
from worlds import World

from tzk_core.build import build_flow, build_knowledge
from tzk_core.evaluation.classification import classification
from tzk_core.evaluation.information import information
from tzk_core.evaluation.scoring import score
from tzk_core.model import TzK
from tzk_core.transforms.bounds import soft_bound_inverse

# The terms of Eq. 4


def whitened(count: int, columns: int) -> Tensor:
    """Random columns of mean 0, variance 1 and covariance 0, so that means of quadratics are closed forms."""
    x = torch.randn(count, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / count)).T


def entropy(deviation: float) -> float:
    return 0.5 * math.log(2 * math.pi * math.e * deviation**2)


def test_information_in_a_linear_gaussian_world() -> None:
    """z ~ N(0, 1), C given z linear: I(z; C) = -½ log(1 - ρ²) and both entropies in closed form."""
    world = World(share=1.0, absent=0.0, present=0.0)
    z, noise = whitened(600, 2).T
    deviation = world.spread * world.residue
    C = world.centre + world.slope * world.spread**2 * z + deviation * noise
    held = held_out(torch.sinh(z)[:, None], torch.ones(600, 1), ["it"], characteristics={"it": C[:, None]})
    found = information(world.model(), [held], chunk=128)["it"].to_json("it")
    assert found["mutual_information"] == pytest.approx(-math.log(world.residue), abs=1e-9)
    assert found["entropy"] == pytest.approx(entropy(world.spread), abs=1e-9)
    assert found["conditional_entropy"] == pytest.approx(entropy(deviation), abs=1e-9)
    # I = H(K) - H(K given T) in any consistent model
    difference = found["entropy"] - found["conditional_entropy"]
    assert found["mutual_information"] == pytest.approx(difference, abs=1e-9)
    assert found["inconsistency_nats"] == pytest.approx(0, abs=1e-9)
    assert found["discriminator_accuracy"] == 1 and found["discriminator_balanced_accuracy"] is None

    sampled = held_out(held.T, held.presence, ["it"])  # C drawn from the encoder, which is exact
    found = information(world.model(), [sampled], chunk=128)["it"].to_json("it")
    assert found["mutual_information"] == pytest.approx(-math.log(world.residue), abs=0.15)
    assert found["conditional_entropy"] == pytest.approx(entropy(deviation), abs=0.15)
    assert found["inconsistency_nats"] == pytest.approx(0, abs=1e-9)


def test_information_weighs_data_sets_by_their_share_and_samples_by_their_number() -> None:
    world = World()
    generator = torch.Generator().manual_seed(0)
    parts, expected = [], {"mutual_information": 0.0, "entropy": 0.0, "conditional_entropy": 0.0}
    total, right = 0.0, {0: [0.0, 0.0], 1: [0.0, 0.0]}
    for dataset, share, count in (("one", 0.8, 40), ("two", 0.2, 25)):
        z = 1.5 * torch.randn(count, generator=generator, dtype=torch.float64)
        C = torch.randn(count, generator=generator, dtype=torch.float64)
        presence = torch.randint(0, 3, (count,), generator=generator).double()
        presence[presence == 2] = NAN
        parts.append(
            held_out(
                torch.sinh(z)[:, None],
                presence[:, None],
                ["it"],
                dataset=dataset,
                share=share,
                characteristics={"it": C[:, None]},
            )
        )
        log_z = world.log_prob_z(z)
        log_p = {0: world.log_prob_absent_given(z), 1: world.log_prob_present_given(z)}
        for i, kappa in enumerate(presence.tolist()):
            if math.isnan(kappa):
                continue
            weight, k = share / count, int(kappa)
            prior = math.log(world.share if k else 1 - world.share)
            information_, entropy_, conditional = log_p[k][i] - prior, -prior, -log_p[k][i]
            if k:
                information_ = world.log_prob_z_given(z, C)[i] - log_z[i]
                entropy_ = entropy_ - world.log_prob_C(C)[i]
                conditional = conditional - world.log_prob_C_given(C, z)[i]
            total += weight
            for key, value in zip(expected, (information_, entropy_, conditional), strict=True):
                expected[key] += weight * float(value)
            right[k][0] += weight * float(log_p[k][i] > log_p[1 - k][i])
            right[k][1] += weight
    found = information(world.model(), parts)["it"].to_json("it")
    for key, value in expected.items():
        assert found[key] == pytest.approx(value / total, abs=1e-6), key
    shares = [right[k][0] / right[k][1] for k in (0, 1)]
    assert found["discriminator_balanced_accuracy"] == pytest.approx(sum(shares) / 2)
    assert found["discriminator_accuracy"] == pytest.approx((right[0][0] + right[1][0]) / total)


def test_information_finds_an_inconsistent_model() -> None:
    world = World()

    def shift(kind: Any) -> None:
        kind.log_odds += 0.25  # every present sample is then off by that change of log p(κ=1)

    odds = math.log(world.share / (1 - world.share))
    gap = math.log(1 + math.exp(-odds)) - math.log(1 + math.exp(-odds - 0.25))
    T = torch.sinh(torch.randn(30, 1, dtype=torch.float64))
    found = information(world.model(shift), [held_out(T, torch.ones(30, 1), ["it"])])["it"]
    assert found.inconsistency.value == pytest.approx(gap, abs=1e-9)
    assert found.inconsistency_of["toy"].value == pytest.approx(gap, abs=1e-9)


# Classification


def clusters(deviation: float, middle: float = 1.0) -> TzK:
    """Two knowledge types, "left" and "right", at -middle and middle of the first axis, whatever C; and
    discriminators that are exact for two equally frequent classes."""
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    for name, at in (("left", -middle), ("right", middle)):
        kind = build_knowledge("gaussian", (2,), name=name)
        bias = kind.latent.regressor[-1].bias
        with torch.no_grad():
            bias[:2] = soft_bound_inverse(torch.tensor([at, 0.0]), kind.latent.mean_bound)
            bias[2:] = soft_bound_inverse(torch.tensor(deviation).log(), kind.latent.log_scale_bound)
        kind.discriminator = nn.Linear(2, 1)
        with torch.no_grad():
            kind.discriminator.weight.copy_(torch.tensor([[2 * at / deviation**2, 0.0]]))
            kind.discriminator.bias.zero_()
        kind.fit_characteristics(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))  # nor does its encoder
        model.add(name, kind)
    return model


def classified(model: TzK, T: Tensor, truth: Tensor, *, log_weights: dict[str, float]) -> dict[str, Any]:
    held = held_out(T, nn.functional.one_hot(truth, 2), ["left", "right"])
    return classification(score(model, held, 4, everywhere=log_weights, chunk=7), "sides", log_weights)


def test_classification_in_a_separable_world() -> None:
    truth = torch.arange(20) % 2
    T = 0.1 * torch.randn(20, 2) + (2.0 * truth - 1)[:, None] * torch.tensor([1.0, 0.0])
    model, even = clusters(0.1), {"left": math.log(0.5), "right": math.log(0.5)}
    perfect = classified(model, T, truth, log_weights=even)
    assert perfect["bayes_accuracy"] == perfect["discriminator_accuracy"] == 1
    assert perfect["disagreement"] == 0
    assert (perfect["partition"], perfect["dataset"], perfect["count"]) == ("sides", "toy", 20)
    with torch.no_grad():
        for _, kind in model.named_knowledge():
            kind.discriminator.weight.neg_()
    turned = classified(model, T, truth, log_weights=even)
    assert turned["bayes_accuracy"] == 1 and turned["discriminator_accuracy"] == 0 and turned["disagreement"] == 1


def test_bayes_classification_equals_brute_force_and_heeds_the_weights() -> None:
    truth = torch.arange(60) % 2
    T = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    for share in (0.5, 0.9):
        # log p(right given T) - log p(left given T) = 2 x middle / deviation² + log-odds of the weights
        right = 2 * T[:, 0] * 0.5 + math.log((1 - share) / share) > 0
        found = classified(
            clusters(1.0, 0.5), T, truth, log_weights={"left": math.log(share), "right": math.log(1 - share)}
        )
        assert found["bayes_accuracy"] == pytest.approx((right.long() == truth).double().mean().item())
