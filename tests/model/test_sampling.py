"""Samples are repeatable, and have the density that log_prob says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from nflows.distributions.base import Distribution
from one_dimension import grid_in_t, one_dimensional
from torch import Tensor

from tzk_core.build import build_flow, build_knowledge
from tzk_core.model import TzK
from tzk_core.random_streams import stream

# sampling


@pytest.mark.parametrize("condition", [{}, {"knowledge": "k0"}, {"knowledge": "k1", "characteristics": [0.5, 1.0]}])
def test_a_seed_decides_the_samples(model: TzK, condition: dict[str, Any]) -> None:
    first = model.sample(6, seed=1, **condition)
    assert first.shape == (6, 3) and first.isfinite().all() and first.dtype == torch.float64
    torch.rand(5)
    assert torch.equal(model.sample(6, seed=1, **condition), first)
    assert not torch.equal(model.sample(6, seed=2, **condition), first)
    free = model.sample(6, **condition)
    assert not torch.equal(model.sample(6, **condition), free)
    torch.manual_seed(0)
    one = model.sample(6, **condition)
    torch.manual_seed(0)
    assert torch.equal(model.sample(6, **condition), one)


def test_temperature_scales_the_noise_of_z(model: TzK) -> None:
    z = [model.encode(model.sample(5, seed=0, temperature=t)) for t in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(z[0], torch.zeros_like(z[0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(z[1], 0.5 * z[2])
    still = model.sample(5, "k0", [0.5, 1.0], temperature=0.0)
    mean, _ = model.find("k0").latent.parameters_of(torch.tensor([0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(model.encode(still), mean.expand(5, 3))


def test_samples_have_the_density_that_log_prob_says() -> None:
    """In one dimension: the distribution function of log_prob, by quadrature, makes samples uniform."""
    model = one_dimensional()
    grid = grid_in_t(model, 20001)
    for observed in ({}, {"knowledge": "k0", "characteristics": torch.tensor([1.0, -1.0])}):
        density = model.log_prob(grid[:, None], **observed).detach().exp()
        distribution = torch.cumulative_trapezoid(density, grid)
        samples = model.sample(4000, seed=0, **observed)[:, 0]
        uniform, _ = distribution[torch.searchsorted(grid, samples).clamp(1, 20000) - 1].sort()
        expected = (torch.arange(4000) + 0.5) / 4000
        assert (uniform - expected).abs().max() < 1.63 / math.sqrt(4000) + 0.01


def test_adding_knowledge_moves_nothing_of_the_others() -> None:
    def weights(model: TzK, name: str) -> list[Tensor]:
        return list(model.find(name).state_dict().values())

    alone, together = TzK(build_flow((4,), steps=1)), TzK(build_flow((4,), steps=1))
    for name in ("b", "a", "c"):
        together.add(name, build_knowledge("gaussian", (4,), name=name))
    alone.add("a", build_knowledge("gaussian", (4,), name="a"))
    assert all(torch.equal(x, y) for x, y in zip(weights(alone, "a"), weights(together, "a"), strict=True))
    T = torch.rand(3, 4)
    for model in (alone, together):
        model.flow.initialise(T)
    assert torch.equal(alone.log_prob(T), together.log_prob(T))
    assert torch.equal(alone.log_prob(T, "a"), together.log_prob(T, "a"))
    assert torch.equal(alone.sample(3, seed=0), together.sample(3, seed=0))
    assert torch.equal(alone.sample(3, "a", seed=0), together.sample(3, "a", seed=0))


def test_streams_are_independent_and_repeatable() -> None:
    draws = {
        names: torch.randn(2000, generator=stream(*names))
        for names in ((0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", 2))
    }
    assert torch.equal(draws[0, "a"], torch.randn(2000, generator=stream(0, "a")))
    correlation = torch.corrcoef(torch.stack(list(draws.values()))).fill_diagonal_(0)
    assert correlation.abs().max() < 0.1


# as a distribution of nflows


def test_a_conditional_behaves_as_a_distribution_of_nflows(model: TzK, T: Tensor) -> None:
    conditional = model.conditional("k0")
    assert isinstance(conditional, Distribution)
    assert torch.equal(conditional.log_prob(T), model.log_prob(T, "k0"))
    C = torch.randn(5, 2, dtype=torch.float64)
    assert torch.equal(conditional.log_prob(T, C), model.log_prob(T, "k0", C))
    assert conditional.sample(4).shape == (4, 3)
    assert conditional.sample(4, context=C).shape == (5, 4, 3)
    with pytest.raises(ValueError, match="context"):
        conditional.log_prob(T, C[:2])


def test_samples_of_a_conditional_belong_to_their_context(model: TzK) -> None:
    knowledge = model.find("k0")
    with torch.no_grad():
        knowledge.latent.regressor[-1].bias[3:] = -30.0  # next to no noise
        knowledge.latent.regressor[-1].weight[3:] = 0.0
    C = torch.tensor([[2.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)
    samples = model.conditional("k0").sample(3, C)
    mean, _ = knowledge.latent.parameters_of(C)
    for row in range(2):
        expected = mean[row].expand(3, 3)
        torch.testing.assert_close(model.encode(samples[row]), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("base", ["gaussian", "logistic"])
def test_the_shared_flow_samples_in_its_own_type(base: str) -> None:
    flow = build_flow((4,), steps=1, base=base).double()
    assert flow.sample(3).shape == (3, 4) and flow.sample(3).dtype == torch.float64
