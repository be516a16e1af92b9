"""The importance-weighted bound tends to the integral over C."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.knowledge.importance import log_prob_present
from tzk_core.random_streams import stream


def log_prob_by_quadrature(knowledge: Knowledge, z: Tensor, points: int = 301) -> Tensor:
    """log of the integral of p(z given C) p(C) over C in R^2."""
    unit = torch.linspace(-8, 8, points, dtype=torch.float64)
    grid = (
        torch.cartesian_prod(unit, unit) * knowledge.characteristics_prior.scale + knowledge.characteristics_prior.mean_
    )
    cell = (unit[1] - unit[0]) ** 2 * knowledge.characteristics_prior.scale.prod()
    log_prior = knowledge.log_prob_characteristics(grid)
    values = [
        torch.logsumexp(knowledge.log_prob_latent(row.expand(len(grid), -1), grid) + log_prior, 0) + cell.log()
        for row in z
    ]
    return torch.stack(values)


def wide(encoder: float) -> tuple[Knowledge, Tensor]:
    """A gaussian knowledge type whose p(z given C) depends strongly on C, and an encoder of a given log-scale that is
    never quite right."""
    knowledge = GaussianKnowledge((3,), hidden=8, layers=3)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in knowledge.latent.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
        for parameter in knowledge.characteristics_encoder.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        knowledge.characteristics_encoder.regressor[-1].bias[2:] = encoder
        knowledge.characteristics_prior.mean_.copy_(torch.tensor([0.5, -1.0]))
        knowledge.characteristics_prior.scale.copy_(torch.tensor([1.5, 0.8]))
    knowledge.double()
    C = knowledge.imagine(torch.randn(4, 2, generator=generator, dtype=torch.float64))
    return knowledge, knowledge.decode(C, torch.randn(4, 3, generator=generator, dtype=torch.float64)).detach()


@torch.no_grad()
@pytest.mark.parametrize("encoder", [0.0, -1.0, -4.0])
def test_the_importance_weighted_bound_tends_to_the_integral_over_c(encoder: float) -> None:
    """Also with an encoder far too narrow (sigma = e^-4), which the share of the prior rescues."""
    knowledge, z = wide(encoder)
    exact = log_prob_by_quadrature(knowledge, z)
    weights_matter = knowledge.log_prob_latent(
        z[:, None].expand(4, 50, 3).reshape(-1, 3), 2 * torch.randn(200, 2).double()
    )
    assert weights_matter.std() > 1, "otherwise anything would pass"
    bound = log_prob_present(knowledge, z, 60000, generator=stream(0, "test"))
    torch.testing.assert_close(bound, exact, rtol=0, atol=0.04)


@torch.no_grad()
def test_the_bound_is_below_the_integral_on_average_and_rises_with_samples() -> None:
    knowledge, z = wide(-1.0)
    exact = log_prob_by_quadrature(knowledge, z).mean()
    means = [
        torch.stack([log_prob_present(knowledge, z, samples, generator=stream(i)).mean() for i in range(400)]).mean()
        for samples in (1, 4, 32)
    ]
    assert means[0] < means[1] < means[2] < exact + 0.02


@torch.no_grad()
def test_the_estimate_is_unbiased_before_the_logarithm() -> None:
    knowledge, z = wide(-1.0)
    for samples in (1, 2, 9):
        estimates = torch.stack(
            [log_prob_present(knowledge, z, samples, generator=stream(i)).exp() for i in range(1000)]
        )
        error = estimates.std(0) / math.sqrt(1000)
        assert ((estimates.mean(0) - log_prob_by_quadrature(knowledge, z).exp()).abs() < 4.5 * error).all()


@torch.no_grad()
def test_a_perfect_encoder_makes_the_bound_nearly_exact_at_once() -> None:
    """Where p(z given C) does not depend on C, the encoder is the prior and every weight is 1."""
    knowledge = GaussianKnowledge((3,)).double()
    knowledge.initialise(stream(0))
    knowledge.fit_characteristics(
        torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, 2)
    )  # mean 0, deviation 1
    z = torch.randn(4, 3, dtype=torch.float64)
    C = torch.zeros(4, 2, dtype=torch.float64)
    torch.testing.assert_close(log_prob_present(knowledge, z, 1, generator=stream(0)), knowledge.log_prob_latent(z, C))
    torch.testing.assert_close(log_prob_present(knowledge, z, 8, generator=stream(1)), knowledge.log_prob_latent(z, C))
