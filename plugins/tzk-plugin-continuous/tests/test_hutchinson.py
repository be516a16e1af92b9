"""Hutchinson's estimate: without bias, a function of each sample alone, repeatable, and other noise at each step."""

from __future__ import annotations

import pytest
import torch
from continuous_layers import perturbed
from tzk_plugin_continuous.ffjord import Ffjord
from tzk_plugin_continuous.trace import rademacher

from tzk_core.random_streams import seeded


def test_noise_is_plus_or_minus_one_without_correlations() -> None:
    """Of 4,000 samples that differ little: means and products of neighbours, within four deviations."""
    inputs = 1 + 1e-3 * torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    noise = rademacher(inputs, 5, 2).flatten(1)
    assert noise.abs().eq(1).all()
    correlations = noise.T @ noise / 4000 - torch.eye(6)
    assert correlations.abs().max() < 4 / 4000**0.5
    assert noise.mean(0).abs().max() < 4 / 4000**0.5
    assert (noise[1:] * noise[:-1]).mean(0).abs().max() < 4 / 4000**0.5
    assert (noise * rademacher(inputs, 6, 2).flatten(1)).mean(0).abs().max() < 4 / 4000**0.5


def test_noise_depends_on_the_values_of_a_sample_and_their_order() -> None:
    inputs = torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, -0.0], [-0.0, 0.0]])
    noise = rademacher(inputs, 1, 64)
    assert torch.equal(noise[2], noise[3]), "zeros are equal"
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(rademacher(inputs.flip(0).double(), 1, 64).flip(0), noise.double())


def test_the_mean_of_the_estimate_is_the_exact_trace() -> None:
    exact = perturbed(Ffjord((4,), 6, 1, evaluation_trace="exact", steps=2, evaluation_tolerance=1e-3), by=0.2)
    estimate = Ffjord((4,), 6, 1, evaluation_trace="hutchinson", steps=2, evaluation_tolerance=1e-3).double().eval()
    estimate.load_state_dict(exact.state_dict())
    inputs = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs, expected = (each.detach() for each in exact(inputs))
    draws = []
    for key in range(200):
        estimate.key = key
        with torch.no_grad():
            z, logabsdet = estimate(inputs)
        draws.append(logabsdet)
    torch.testing.assert_close(z, outputs, rtol=0, atol=1e-2)  # the noise moves no sample
    each = torch.stack(draws)
    assert (each.std(0) > 0.01).all()
    assert ((each.mean(0) - expected).abs() < 4 * each.std(0) / 200**0.5).all()


def test_more_probes_have_less_variance() -> None:
    def deviation(probes: int) -> float:
        torch.manual_seed(0)
        layer = perturbed(Ffjord((4,), 6, 1, evaluation_trace="hutchinson", probes=probes))
        layer.dynamics.squashed[0].linear.weight.data *= 3
        same = torch.zeros(300, 4, dtype=torch.float64)
        same += 1e-5 * torch.randn(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return layer(same)[1].std().item()

    assert deviation(16) == pytest.approx(deviation(1) / 4, rel=0.3)


def test_evaluation_repeats_and_leaves_the_streams_alone() -> None:
    inputs = torch.randn(5, 3)
    before = torch.get_rng_state()
    first, second = (Ffjord((3,), evaluation_trace="hutchinson", seed=3) for _ in range(2))
    second.load_state_dict(first.state_dict())
    after_building = torch.get_rng_state()
    with torch.no_grad():
        for layer in (first, second):
            layer.dynamics.squashed[-1].linear.weight.fill_(0.5)
    results = [layer.eval()(inputs) for layer in (first, second, first)]
    assert all(torch.equal(results[0][1], other[1]) for other in results[1:])
    assert torch.equal(torch.get_rng_state(), after_building) and not torch.equal(before, after_building)
    other = Ffjord((3,), evaluation_trace="hutchinson", seed=4).eval()
    other.load_state_dict(first.state_dict())
    assert not torch.equal(other(inputs)[1], results[0][1])


def test_training_draws_anew_at_each_step_by_the_seed_of_the_step() -> None:
    layer = perturbed(Ffjord((3,), 5, 1, trace="hutchinson")).train()
    inputs = torch.randn(6, 3, dtype=torch.float64)

    def at(step: int) -> torch.Tensor:
        with seeded(0, "step", step):
            return layer(inputs)[1]

    assert torch.equal(at(1), at(1)) and not torch.equal(at(1), at(2))
    with seeded(0, "step", 1):  # a shard of the batch has the noise that it has in the whole
        torch.testing.assert_close(layer(inputs[2:])[1], at(1)[2:], rtol=0, atol=1e-12)
