"""TzK answers with the densities that its parts define."""

from __future__ import annotations

import math

import pytest
import torch
from models import small
from one_dimension import grid_in_t, one_dimensional
from torch import Tensor

from tzk_core.build import build_flow
from tzk_core.distributions.standard import StandardLogistic
from tzk_core.model import TzK


def test_log_prob_is_that_of_the_flow_by_autograds_jacobian(model: TzK, T: Tensor) -> None:
    for row in range(len(T)):
        one = T[row : row + 1]
        jacobian = torch.autograd.functional.jacobian(model.encode, one).view(3, 3)
        normal = -0.5 * (model.encode(one) ** 2 + math.log(2 * math.pi)).sum()
        expected = normal + torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(model.log_prob(one)[0], expected)
    assert torch.equal(model.log_prob(T), model.flow.log_prob(T))


def test_with_no_knowledge_it_is_the_plain_flow(T: Tensor) -> None:
    model = small(())
    assert torch.equal(model.log_prob(T), model.flow.log_prob(T)) and model.posterior(T) == {}
    assert model.sample(4).shape == (4, 3)


@pytest.mark.parametrize("name", ["k0", "k1"])
def test_log_prob_given_c_is_that_of_the_knowledge_with_the_jacobian_of_the_flow(
    model: TzK, T: Tensor, name: str
) -> None:
    C = torch.randn(5, 2, dtype=torch.float64)
    z, logabsdet = model.flow.encode(T)
    knowledge = model.find(name)
    expected = knowledge.latent.log_prob(z, knowledge.characteristics_prior.standardise(C)) + logabsdet
    assert torch.equal(model.log_prob(T, name, C), expected)
    torch.testing.assert_close(model.log_prob(T, name, C[0]), model.log_prob(T, name, C[:1].expand(5, 2)))
    torch.testing.assert_close(model.log_prob(T, name, [0.5, 1]), model.log_prob(T, name, torch.tensor([0.5, 1.0])))


def test_the_conditional_density_integrates_to_one_over_t() -> None:
    """In one dimension, by quadrature, with the integral over C by importance sampling in it."""
    model = one_dimensional()
    T = grid_in_t(model, 3001)
    density = model.log_prob(T[:, None], "k0", importance_samples=256).detach().exp()
    assert torch.trapezoid(density, T).item() == pytest.approx(1.0, abs=0.02)
    prior = model.log_prob(T[:, None]).detach().exp()
    assert torch.trapezoid(prior, T).item() == pytest.approx(1.0, abs=1e-3)


def test_the_bound_of_a_model_depends_on_its_seed_alone(model: TzK, T: Tensor) -> None:
    first = model.log_prob(T, "k0")
    torch.rand(3)
    assert torch.equal(model.log_prob(T, "k0"), first) and not torch.equal(model.log_prob(T, "k0", seed=1), first)


def test_gradients_reach_the_model_through_every_density(model: TzK, T: Tensor) -> None:
    (model.log_prob(T).sum() + model.log_prob(T, "k0").sum() + model.log_prob(T, "k1").sum()).backward()
    left = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert all("discriminator" in name for name in left)


def test_decode_undoes_encode(model: TzK, T: Tensor) -> None:
    torch.testing.assert_close(model.decode(model.encode(T)), T)


def test_posterior_is_the_discriminator_and_the_encoder(model: TzK, T: Tensor) -> None:
    z, answers = model.encode(T), model.posterior(T)
    assert list(answers) == ["k0", "k1"]
    for name, posterior in answers.items():
        knowledge = model.find(name)
        torch.testing.assert_close(posterior.presence, knowledge.log_prob_presence_given(z).present.exp())
        C = knowledge.encode(z, torch.randn(5, 2, dtype=torch.float64))
        expected = torch.distributions.Normal(posterior.mean, posterior.deviation).log_prob(C).sum(1)
        torch.testing.assert_close(knowledge.log_prob_characteristics_given(C, z), expected)


def test_a_model_without_parameters_is_a_model_too() -> None:
    model = TzK(build_flow((3,), layers=[{"type": "symlog"}]))
    assert model.sample(4, seed=0).shape == (4, 3)
    model.posterior(torch.randn(2, 3))


def test_the_logistic_base_with_a_logit_is_the_uniform_density() -> None:
    """The logistic distribution function undoes the logit: log p(T) = log(1 - 2 alpha) for each dimension."""
    model = TzK(build_flow((6,), layers=[{"type": "logit", "alpha": 0.05}], base="logistic"))
    assert isinstance(model.flow.base, StandardLogistic)
    log_prob = model.log_prob(torch.rand(4, 6))
    torch.testing.assert_close(log_prob, torch.full((4,), 6 * math.log(0.9)))
