"""A flow whose networks see C is a conditional density that conforms, integrates to one and depends on C."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from tzk_plugin_baselines.contextual import ConditionalFlowKnowledge

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.errors import TzkError
from tzk_core.testing import check_knowledge

SIZES: dict[str, dict[str, Any]] = {
    "maf": dict(steps=2, hidden=6),
    "real-nvp": dict(steps=2, hidden=6),
    "rq-nsf-coupling": dict(steps=2, hidden=6),
    "made-mog": dict(hidden=6, components=2),
}
EVERY = pytest.mark.parametrize("architecture", SIZES)
GRID = torch.linspace(-12, 12, 241, dtype=torch.float64)


def made(architecture: str) -> tuple[ConditionalFlowKnowledge, Tensor]:
    """A knowledge type of three characteristics with perturbed parameters, and three latents, in float64."""
    kind = build_knowledge(
        "conditional-flow", (2,), 0, name="k", architecture=architecture, characteristics=3, encoder=5,
        **SIZES[architecture],
    )  # fmt: skip
    assert isinstance(kind, ConditionalFlowKnowledge)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in kind.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return kind.double(), torch.randn(3, 2, generator=generator, dtype=torch.float64)


@EVERY
def test_it_conforms(architecture: str) -> None:
    check_knowledge(*made(architecture), stackable=architecture in ("maf", "made-mog"))


@EVERY
def test_the_density_integrates_to_one_for_every_C_and_depends_on_it(architecture: str) -> None:
    kind, _ = made(architecture)
    points, C = torch.cartesian_prod(GRID, GRID), torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 2.0]]).double()
    with torch.no_grad():
        densities = [kind.log_prob_latent(points, row.expand(len(points), 3)).exp() for row in C]
    for density in densities:
        assert float(density.sum() * (GRID[1] - GRID[0]) ** 2) == pytest.approx(1, abs=5e-3)
    assert float((densities[0] - densities[1]).abs().max()) > 1e-3


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(TzkError, match="architecture is one of .*maf.*; got 'mof'"):
        ConditionalFlowKnowledge((2,), architecture="mof")


@pytest.mark.slow
def test_it_learns_the_posterior_of_a_linear_gaussian_simulator() -> None:
    """θ from N(0, I), x from N(θ, I): the posterior is N(x/2, I/2), whose entropy is the best mean log-density."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(2000, 2, generator=generator)
    x = theta + torch.randn(2000, 2, generator=generator)
    model = tzk_core.TzK(build_flow((2,), "logit"))
    kind = build_knowledge("conditional-flow", (2,), 0, name="x", characteristics=2, steps=2, hidden=16)
    model.add("x", kind)
    present = {"x": torch.ones(2000)}
    tzk_core.fit(model, theta, present, characteristics={"x": x}, steps=400, batch_size=200, learning_rate=3e-3)
    observed = torch.tensor([1.0, -2.0])
    samples = model.sample(4000, "x", observed, seed=1)
    assert torch.allclose(samples.mean(0), observed / 2, atol=0.12)
    assert torch.allclose(samples.std(0), torch.full((2,), 0.5**0.5), atol=0.08)
