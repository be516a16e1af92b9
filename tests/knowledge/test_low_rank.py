"""The low-rank Gaussian against torch.distributions and Monte Carlo, and the knowledge type for a large latent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, kl_divergence

from tzk_core import TzkError, build_knowledge
from tzk_core.distributions.low_rank import LowRankGaussian
from tzk_core.distributions.standard import LOG_2PI
from tzk_core.knowledge.low_rank import LowRankKnowledge

DIMS, RANK = 6, 3


def moved(shape: tuple[int, ...] = (DIMS,), sign: float | None = None, dims: int = DIMS) -> LowRankGaussian:
    """With random parameters, in float64; `sign` is that of all factors."""
    density = LowRankGaussian(shape, 2, dims=dims, rank=RANK, hidden=5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        if sign is not None:
            density.raw_log_factor.copy_(sign * density.raw_log_factor.abs())
    return density.double()


def contexts(count: int) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def covariance(density: LowRankGaussian, context: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance from the docstring's formula, for a context of shape (2,)."""
    mean, log_scale = density.diagonal.parameters_of(context)
    loading = log_scale.exp()[:, None] * density.directions()
    return mean, torch.diag((2 * log_scale).exp()) + (loading * torch.expm1(2 * density.log_factor())) @ loading.T


def test_with_wider_directions_it_is_torchs() -> None:
    density, context = moved(sign=1.0), contexts(4)
    x = torch.randn(4, DIMS, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mean, log_scale = density.diagonal.parameters_of(context)
    factor = log_scale.exp()[:, :, None] * density.directions() * torch.expm1(2 * density.log_factor()).sqrt()
    other = LowRankMultivariateNormal(mean, factor, (2 * log_scale).exp())
    torch.testing.assert_close(density.log_prob(x, context), other.log_prob(x))


@pytest.mark.parametrize("sign", [1.0, -1.0, None])
def test_its_density_is_that_of_its_covariance(sign: float | None) -> None:
    density, context = moved(sign=sign), contexts(1)[0]
    mean, matrix = covariance(density, context)
    x = mean + torch.randn(5, DIMS, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    actual = density.log_prob(x, context.expand(5, 2))
    torch.testing.assert_close(actual, MultivariateNormal(mean, matrix).log_prob(x))


def test_its_samples_have_its_moments() -> None:
    density, context = moved(), contexts(1)
    noise = torch.randn(100_000, DIMS, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x = density.from_noise(noise, context.expand(len(noise), 2))
    mean, matrix = covariance(density, context[0])
    deviation = matrix.diagonal().sqrt()
    torch.testing.assert_close((x.mean(0) - mean) / deviation, torch.zeros(DIMS).double(), rtol=0, atol=0.015)
    scaled = (x.T.cov() - matrix) / torch.outer(deviation, deviation)
    torch.testing.assert_close(scaled, torch.zeros_like(scaled), rtol=0, atol=0.02)


def test_its_directions_are_orthonormal_whatever_the_parameters() -> None:
    density = moved()
    torch.testing.assert_close(density.directions().T @ density.directions(), torch.eye(RANK).double())
    with torch.no_grad():
        density.reflections[:, 1] = density.reflections[:, 0]
    torch.testing.assert_close(density.directions().T @ density.directions(), torch.eye(RANK).double())


def test_several_contexts_for_one_input_are_each_evaluated() -> None:
    density, context = moved((2, 5)), contexts(12).view(3, 4, 2)
    x = torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    together = density.log_prob(x, context)
    for index in range(4):
        torch.testing.assert_close(together[:, index], density.log_prob(x, context[:, index]))


def test_beyond_its_dimensions_it_is_the_standard_gaussian() -> None:
    density, context = moved((3, 5)), contexts(2)
    noise = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    x = density.from_noise(noise, context)
    assert torch.equal(x.flatten(1)[:, DIMS:], noise.flatten(1)[:, DIMS:])
    first = moved().log_prob(x.flatten(1)[:, :DIMS], context)
    rest = -0.5 * (noise.flatten(1)[:, DIMS:].square() + LOG_2PI).sum(1)
    torch.testing.assert_close(density.log_prob(x, context), first + rest)


def test_set_matches_moments_of_as_many_directions() -> None:
    """A covariance of the family comes back; one that is not costs fewer nats with more directions."""
    density = moved()
    mean, matrix = (value.detach() for value in covariance(density, contexts(1)[0]))
    target = MultivariateNormal(mean, matrix)

    def nats(rank: int) -> float:
        fitted = LowRankGaussian((DIMS,), 2, dims=DIMS, rank=rank, hidden=5).double()
        fitted.set(mean, matrix)
        got, got_matrix = covariance(fitted, torch.ones(2).double())
        torch.testing.assert_close(got, mean)
        return kl_divergence(target, MultivariateNormal(got, got_matrix)).item()

    assert nats(DIMS) == pytest.approx(0.0, abs=1e-9)
    assert nats(1) > nats(2) > nats(4) > 0


@pytest.mark.parametrize("common", [4.0, -0.15])
def test_set_finds_one_direction_wider_or_narrower_than_all_others(common: float) -> None:
    matrix = torch.eye(DIMS).double() + common * torch.ones(DIMS, DIMS)
    density = LowRankGaussian((DIMS,), 2, dims=DIMS, rank=1, hidden=5).double()
    density.set(torch.zeros(DIMS).double(), matrix)
    torch.testing.assert_close(covariance(density, torch.ones(2).double())[1].detach(), matrix)


def test_it_is_small() -> None:
    knowledge = build_knowledge("low-rank", (1024,))
    assert 10_000 < sum(parameter.numel() for parameter in knowledge.parameters()) <= 21_000


def test_a_large_latent_costs_nothing_beyond_its_dimensions() -> None:
    """Neither density nor discriminator nor encoder depends on the latents after the first `dims`."""
    knowledge = build_knowledge("low-rank", (1, 8, 8), dims=10, rank=2)
    with torch.no_grad():
        for parameter in knowledge.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    knowledge = knowledge.double()
    z = torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    other = z.clone()
    other.flatten(1)[:, 10:] += 3
    C = contexts(4)
    base = [-0.5 * (value.square() + LOG_2PI).flatten(1).sum(1) for value in (z, other)]
    torch.testing.assert_close(knowledge.log_prob_latent(z, C) - base[0], knowledge.log_prob_latent(other, C) - base[1])
    for a, b in zip(knowledge.log_prob_presence_given(z), knowledge.log_prob_presence_given(other), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(knowledge.encode(z, C), knowledge.encode(other, C))


def test_its_discriminator_can_be_the_bayes_odds_of_two_diagonal_gaussians() -> None:
    knowledge = build_knowledge("low-rank", (4,)).double()
    mean, scale = torch.tensor([[0.5, -1.0, 0.0, 2.0], [0.5, 1.0, 1.5, 0.8]], dtype=torch.float64)
    log_odds = torch.tensor(-0.7, dtype=torch.float64)
    curvature = -0.5 * (scale**-2 - 1)
    constant = log_odds - scale.log().sum() - 0.5 * (mean / scale).square().sum() + curvature.sum()
    with torch.no_grad():
        knowledge.discriminator.slope.copy_(mean / scale**2)
        knowledge.discriminator.curvature.copy_(curvature)
        knowledge.discriminator.regressor[-1].bias.fill_(constant)
    z = 0.3 * torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ratio = (-0.5 * ((z - mean) / scale).square() - scale.log() + 0.5 * z.square()).sum(1)
    logits = knowledge.discriminator(z).squeeze(1)
    torch.testing.assert_close(logits, log_odds + ratio)
    absent, present = knowledge.log_prob_presence_given(z)
    torch.testing.assert_close(present - absent, 20 * torch.tanh(logits / 20))


def test_added_knowledge_starts_from_the_moments_of_many_latents_and_of_few_not() -> None:
    knowledge = build_knowledge("low-rank", (12,), dims=6, rank=2)
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(2000, 1, generator=generator)
    z = torch.randn(2000, 12, generator=generator)
    z[:, :6] = 1 + 0.5 * z[:, :6] + common
    before = {key: value.clone() for key, value in knowledge.state_dict().items()}
    knowledge.start(z[:255], z[:0])
    assert all(torch.equal(value, before[key]) for key, value in knowledge.state_dict().items())
    knowledge.start(z, z[:0])
    fresh = 1 + 0.5 * torch.randn(2000, 6, generator=generator) + torch.randn(2000, 1, generator=generator)
    fresh = torch.cat([fresh, torch.randn(2000, 6, generator=generator)], 1)
    truth = MultivariateNormal(torch.ones(6), 0.25 * torch.eye(6) + 1)
    expected = truth.log_prob(fresh[:, :6]) - 0.5 * (fresh[:, 6:].square() + LOG_2PI).sum(1)
    actual = knowledge.log_prob_latent(fresh, torch.zeros(2000, 2))
    assert (expected - actual).mean().item() == pytest.approx(0.0, abs=0.05)


def test_far_out_it_stays_finite_in_float32() -> None:
    knowledge = build_knowledge("low-rank", (300,))
    with torch.no_grad():
        for parameter in knowledge.parameters():
            parameter.add_(10 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    z = torch.tensor([1e-3, 1.0, 1e3, 1e5])[:, None] * torch.ones(300)
    C = 1e3 * torch.ones(4, 2)
    for value in (
        knowledge.log_prob_latent(z, C),
        *knowledge.log_prob_presence_given(z),
        knowledge.encode(z, C),
        knowledge.decode(C, z),
    ):
        assert value.isfinite().all()
    assert knowledge.log_prob_presence_given(z).present.max() <= 0


@pytest.mark.parametrize("wrong", [{"dims": 0}, {"rank": 0}])
def test_no_dimensions_and_no_directions_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(TzkError, match="at least 1"):
        LowRankKnowledge((4,), **wrong)
